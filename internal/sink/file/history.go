package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"naru/internal/event"
	"naru/internal/vfs"
)

// historyName is the file beside the state that lists what was published, so that it
// can be taken back. docs/format/files.md has the bytes.
const historyName = "published.ndjson"

// record lists publications, oldest first. One is on it before the state that
// commits its publication; what no state has come to is passed over.
type record struct {
	fs    vfs.FS
	path  string
	limit int64 // bytes
}

// publication is one record of it.
type publication struct {
	Seq    int64           `json:"seq"`
	Where  string          `json:"where"` // Place.Where
	Before event.Positions `json:"before"`
	// Begin is where it began in lanes that Before does not have: a sink need not begin
	// where its stream does.
	Begin event.Positions `json:"begin,omitempty"`
	After event.Positions `json:"after"`
	Files []named         `json:"files"`
}

// named is a file that has appeared.
type named struct {
	Folder string `json:"folder,omitempty"`
	Name   string `json:"name"`
}

// add appends a record, durably. A line that a crash has cut off stays a line of its own.
func (h *record) add(p publication) error {
	line, err := sealLine(p)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := h.append(append([]byte{'\n'}, line...)); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

func sealLine(p publication) ([]byte, error) {
	inner, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(sealed{Version: stateVersion, CRC: checksum(inner), State: inner})
	return append(line, '\n'), err
}

func (h *record) append(text []byte) (err error) {
	fresh := false
	f, err := h.fs.OpenReadWrite(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := h.fs.MkdirAll(filepath.Dir(h.path)); err != nil {
			return err
		}
		fresh = true
		f, err = h.fs.Create(h.path)
	}
	if err != nil {
		return err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end > 0 && end+int64(len(text)) > h.limit {
		if err := f.Close(); err != nil {
			return err
		}
		return h.shorten(text)
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil || !fresh {
		return err
	}
	return h.fs.SyncDir(filepath.Dir(h.path))
}

// shorten keeps the newest half of what is there, and more behind it.
func (h *record) shorten(more []byte) error {
	text, err := h.read()
	if err != nil {
		return err
	}
	text = text[max(int64(len(text))-h.limit/2, 0):]
	text = text[bytes.IndexByte(text, '\n')+1:]
	return replace(h.fs, h.path, append(text, more...))
}

func (h *record) read() ([]byte, error) {
	f, err := h.fs.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return text, errors.Join(err, f.Close())
}

// since lists, newest first, the publications that lead from a state back to the first
// one at which stop says so of the positions before it. false: the list does not reach
// as far.
func (h *record) since(s *stateText, stop func(event.Positions) bool) (out []publication, reached bool, err error) {
	if stop(s.Positions) {
		return nil, true, nil
	}
	text, err := h.read()
	if err != nil {
		return nil, false, fmt.Errorf("read history: %w", err)
	}
	lines := bytes.Split(text, []byte{'\n'})
	at, seq := s.Positions, s.Seq+1
	for i := len(lines) - 1; i >= 0; i-- {
		p, ok := readLine(lines[i])
		if !ok || p.Seq >= seq {
			continue // cut off, or the state has never come to it; one that is missing shows below
		}
		if !p.After.Equal(at) {
			break
		}
		out = append(out, p)
		if at, seq = p.Before, p.Seq; stop(at) {
			return out, true, nil
		}
	}
	return out, false, nil
}

// from lists the publications from one on, also those that no state has come to.
func (h *record) from(seq int64) (out []publication, err error) {
	text, err := h.read()
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		if p, ok := readLine(line); ok && p.Seq >= seq {
			out = append(out, p)
		}
	}
	return out, nil
}

// readLine reads a record; false: it is none, or was cut off.
func readLine(line []byte) (p publication, ok bool) {
	var on sealed
	ok = len(line) > 0 && json.Unmarshal(line, &on) == nil && checksum(on.State) == on.CRC && json.Unmarshal(on.State, &p) == nil
	return p, ok
}

// cut forgets the publications from one on.
func (h *record) cut(seq int64) error {
	text, err := h.read()
	if err != nil || len(text) == 0 {
		return err
	}
	var kept []byte
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		if p, ok := readLine(line); ok && p.Seq < seq {
			kept = append(append(kept, line...), '\n')
		}
	}
	return replace(h.fs, h.path, kept)
}

// forget removes the list.
func (h *record) forget() error {
	if err := h.fs.Remove(h.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove history: %w", err)
	}
	return nil
}
