package iceberg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/quantity"
)

// shapesFile has, by the hash of a contract, what it says of tables and columns.
// A record in the log names the contract that it was judged by; the shape of that
// contract, not of the one in force when the record is read, decides about its
// row. So it is kept before the contract judges its first event, and for good.
const shapesFile = "contracts.json"

// shapeLine is one shape with the contracts that have it: most changes of a
// contract do not change it.
type shapeLine struct {
	Contracts []string   `json:"contracts"`
	Shape     lake.Shape `json:"shape"`
}

type shapes struct {
	known atomic.Pointer[map[string]*lake.Shape] // by hash; never changed once it is there

	mu struct {
		sync.Mutex
		lines []shapeLine
		stamp string // of the file, as it was read
		// gone are hashes that are not in the file. Who asks has them from a record of
		// the log, which is younger than the file's line: so there will be none.
		gone map[string]bool
	}
}

// Shape gives what the contract with that hash says; nil: nothing.
func (l *Lake) Shape(hash []byte) *lake.Shape {
	if len(hash) == 0 {
		return nil
	}
	known := *l.shapes.known.Load()
	if s, ok := known[string(hash)]; ok || !l.readOnly {
		return s
	}
	// Another process may have the lake open, and have taken over a contract since.
	return l.shapeAnew(string(hash))
}

// TableOf names the table that an event belongs to, by its type and the hash of
// the contract that it was judged by.
func (l *Lake) TableOf(typ, hash []byte) string {
	if asked := l.Shape(hash).Name(); asked != "" {
		return asked
	}
	return lake.TableName(string(typ))
}

// KeepShapes makes shapes durable, by the hashes of their contracts. A hash that is
// known keeps the shape it has: rows were made by it. Partition and order make no
// rows: of a contract from before naru applied them they are added.
func (l *Lake) KeepShapes(byHash map[string]*lake.Shape) error {
	if l.readOnly {
		return errors.New("keep shapes of contracts: the lake is open read-only")
	}
	x := &l.shapes
	x.mu.Lock()
	defer x.mu.Unlock()
	old := *x.known.Load()
	lines, fresh := slices.Clone(x.mu.lines), false
	at := map[string]int{} // lines by their shape
	for i := range lines {
		at[textOf(&lines[i].Shape)] = i
	}
	for _, hash := range sortedHashes(byHash) {
		s := byHash[hash]
		have, known := old[hash]
		if s == nil || known && (have.Arranges() || !s.Arranges() || !have.SameRows(s)) {
			continue
		}
		fresh = true
		if known {
			i := at[textOf(have)]
			lines[i].Contracts = slices.DeleteFunc(slices.Clone(lines[i].Contracts), func(h string) bool { return h == hash })
		}
		i, ok := at[textOf(s)]
		if !ok {
			i = len(lines)
			at[textOf(s)] = i
			lines = append(lines, shapeLine{Shape: *s})
		}
		lines[i].Contracts = append(slices.Clone(lines[i].Contracts), hash)
	}
	if !fresh {
		return nil
	}
	b, err := linesOf(shapesFile, lines)
	if err == nil && int64(len(b)) > int64(l.cfg.Contracts) {
		// Which of them the log no longer names is not known: nothing is dropped.
		err = fault.WithHint(fmt.Errorf("%s would have %s, at most %s are kept", shapesFile, quantity.Bytes(len(b)), l.cfg.Contracts),
			"give lake.contracts more; docs/operations.md says when what is old may go")
	}
	if err == nil {
		// Under the lock: contracts change seldom, and the last one is to win.
		err = l.io.WriteFile(filepath.Join(l.root, shapesFile), b)
	}
	if err != nil {
		return fmt.Errorf("keep shapes of contracts: %w", err)
	}
	l.setShapes(lines)
	return nil
}

func textOf(s *lake.Shape) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // texts cannot fail
	}
	return string(b)
}

func sortedHashes(byHash map[string]*lake.Shape) []string {
	list := make([]string, 0, len(byHash))
	for hash := range byHash {
		list = append(list, hash)
	}
	slices.Sort(list)
	return list
}

// loadShapes reads the file when the lake is opened.
func (l *Lake) loadShapes() error {
	x := &l.shapes
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.stamp = l.shapesStamp()
	l.setShapes(nil)
	lines, err := readLines[shapeLine](l, shapesFile)
	if err != nil {
		return fmt.Errorf("read shapes of contracts: %w", err)
	}
	l.setShapes(lines)
	return nil
}

func (l *Lake) setShapes(lines []shapeLine) {
	known := map[string]*lake.Shape{}
	for i := range lines {
		for _, hash := range lines[i].Contracts {
			known[hash] = &lines[i].Shape
		}
	}
	l.shapes.mu.lines = lines
	l.shapes.known.Store(&known)
}

// shapesStamp tells one version of the file from another.
func (l *Lake) shapesStamp() string {
	info, err := l.fs.Stat(filepath.Join(l.root, shapesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return "?" + err.Error()
	}
	return fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
}

// shapeAnew looks whether the file has changed. What cannot be read just now stays
// as it was read before.
func (l *Lake) shapeAnew(hash string) *lake.Shape {
	x := &l.shapes
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.gone[hash] {
		return nil
	}
	if stamp := l.shapesStamp(); stamp != x.mu.stamp {
		lines, err := readLines[shapeLine](l, shapesFile)
		if err != nil {
			return (*x.known.Load())[hash]
		}
		x.mu.stamp = stamp
		l.setShapes(lines)
	}
	s, ok := (*x.known.Load())[hash]
	if !ok {
		if x.mu.gone == nil || len(x.mu.gone) >= maxGone {
			x.mu.gone = map[string]bool{}
		}
		x.mu.gone[hash] = true
	}
	return s
}

// maxGone bounds what is remembered of hashes that are not known.
const maxGone = 10_000

// CopyShapes copies the file to the data folder of a copy, durably; it is to come
// behind the copy of the log, whose records name contracts. It tells how many files
// and bytes that were.
func (l *Lake) CopyShapes(to string) (files int, size int64, err error) {
	from := filepath.Join(l.root, shapesFile)
	b, err := l.io.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err == nil {
		_, err = l.checkLines(from, b)
	}
	if err == nil {
		err = l.io.WriteFile(filepath.Join(to, lakeFolder, shapesFile), b)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("copy shapes of contracts: %w", err)
	}
	return 1, int64(len(b)), nil
}
