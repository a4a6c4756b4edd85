// Command wikipedia is naru's demo: it starts a server in a temporary folder,
// sends 39,244 edits of Wikipedia, waits until they are in their table and asks
// three questions. make demo runs it.
package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait: a demo that hangs says where.
const patience = 2 * time.Minute

func main() {
	naru := flag.String("naru", "bin/naru", "the binary")
	file := flag.String("file", "examples/wikipedia/wikipedia_edits.ndjson.gz", "the edits")
	exit := flag.Bool("exit", false, "end after the answers instead of staying up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, *naru, *file, *exit); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, naru, file string, exit bool) (err error) {
	dir, err := os.MkdirTemp("", "naru-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := start(naru, filepath.Join(dir, "project"), filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	fmt.Printf("naru listens on %s, its folder is %s\n\n", s.url, s.dir)
	// The state of the sending goes into the temporary folder with everything else.
	if err := s.show(ctx, "send", "--type", "wikipedia_edit", "--state", filepath.Join(dir, "sent.json"), file); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.answers(ctx); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	if exit {
		return nil
	}
	fmt.Printf(`Go on, in another terminal:

  curl -d '{"type": "hello", "from": "me"}' %[1]s/v1/events
  %[2]s query --url %[1]s 'select "user", count(*) n from wikipedia_edit group by 1 order by n desc limit 5'
  %[2]s tail --url %[1]s events --follow
  %[2]s status --url %[1]s
  %[1]s/ in a browser

Ctrl-C stops the server and removes its folder.
`, s.url, naru)
	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case <-s.ended:
		return fmt.Errorf("the server has ended by itself; its log:\n%s", s.logText())
	}
}

// server is a running naru.
type server struct {
	naru, dir, url string
	logs           string // path
	cmd            *exec.Cmd
	ended          chan struct{}
	err            error // valid once ended is closed
}

// start runs a server on a free port and waits until it takes events.
func start(naru, dir, logs string) (*server, error) {
	s := &server{naru: naru, dir: dir, logs: logs, ended: make(chan struct{})}
	log, err := os.Create(logs)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has its own
	s.cmd = exec.Command(naru, "serve", dir, "--listen", "127.0.0.1:0")
	s.cmd.Stderr = log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C comes through the demo, once
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		for in := bufio.NewScanner(out); in.Scan(); {
			if url, ok := strings.CutPrefix(in.Text(), "ready "); ok {
				ready <- url
			}
		}
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	select {
	case s.url = <-ready:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("the server did not start; its log:\n%s", s.logText())
	case <-time.After(patience):
		return nil, errors.Join(errors.New("the server did not get ready"), s.stop())
	}
}

func (s *server) logText() string {
	text, err := os.ReadFile(s.logs)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// stop ends the server cleanly.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		return errors.Join(errors.New("the server did not stop"), s.cmd.Process.Kill())
	}
	if s.err != nil {
		return fmt.Errorf("stop the server: %w; its log:\n%s", s.err, s.logText())
	}
	return nil
}

// show runs a command of naru as a user would type it.
func (s *server) show(ctx context.Context, args ...string) error {
	fmt.Printf("$ %s %s\n", s.naru, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, s.naru, args...)
	cmd.Env = append(os.Environ(), "NARU_URL="+s.url)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// settle waits until everything that was acknowledged is in its table.
func (s *server) settle(ctx context.Context) error {
	fmt.Println("waiting until all of it is in its table ...")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		text, err := exec.CommandContext(ctx, s.naru, "status", "--json", "--url", s.url).Output()
		if err != nil {
			return fmt.Errorf("ask status: %w", err)
		}
		var st struct {
			Streams []struct {
				NotYetWritten int64 `json:"not_yet_written"`
			}
		}
		if err := json.Unmarshal(text, &st); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		left := int64(0)
		for _, one := range st.Streams {
			left += one.NotYetWritten
		}
		if left == 0 && len(st.Streams) > 0 {
			fmt.Println()
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d events are not yet written: %w", left, ctx.Err())
		}
	}
}

// query gives the rows of an answer, without its header.
func (s *server) query(ctx context.Context, sql string) ([][]string, error) {
	cmd := exec.CommandContext(ctx, s.naru, "query", "--url", s.url, "--format", "csv", sql)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", sql, err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("read the answer to %q: %w", sql, err)
	}
	return rows[1:], nil
}

// answers prints the three answers.
func (s *server) answers(ctx context.Context) error {
	for _, q := range []struct{ title, sql string }{
		{"Edits per hour", "select strftime(_time, '%H:00') as hour, count(*) as edits from wikipedia_edit group by 1 order by 1"},
		{"Most edited pages", "select page, count(*) as edits from wikipedia_edit group by 1 order by 2 desc, 1 limit 5"},
		{"Channels by characters added", "select channel, sum(added)::bigint as added from wikipedia_edit group by 1 order by 2 desc, 1 limit 5"},
	} {
		rows, err := s.query(ctx, q.sql)
		if err != nil {
			return err
		}
		lines, err := bars(rows)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n  %s\n\n%s\n", q.title, q.sql, lines)
	}
	return nil
}

// bars draws rows of a name and a number.
func bars(rows [][]string) (string, error) {
	const width = 40
	numbers := make([]int64, len(rows))
	wide, most := 0, int64(1)
	for i, row := range rows {
		if len(row) != 2 {
			return "", fmt.Errorf("a row has %d values, not 2: %q", len(row), row)
		}
		n, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			return "", err
		}
		numbers[i] = n
		wide, most = max(wide, len([]rune(row[0]))), max(most, n)
	}
	var b strings.Builder
	for i, row := range rows {
		bar := strings.Repeat("█", int(max(numbers[i], 0)*width/most))
		fmt.Fprintf(&b, "  %-*s %9d %s\n", wide, row[0], numbers[i], bar)
	}
	return b.String(), nil
}

// facts are what is true of the edits, whoever counts them.
var facts = []struct{ what, sql, want string }{
	{"edits", "select count(*) from wikipedia_edit", "39244"},
	{"distinct users", `select count(distinct "user") from wikipedia_edit`, "10531"},
	{"most edited page", "select page || ' ' || count(*) from wikipedia_edit group by page order by count(*) desc, page limit 1", "Wikipedia:Vandalismusmeldung 33"},
	{"edits in #en.wikipedia", "select count(*) from wikipedia_edit where channel = '#en.wikipedia'", "11549"},
}

// check compares with the facts, so that a demo that shows nonsense fails.
func (s *server) check(ctx context.Context) error {
	var wrong []error
	for _, f := range facts {
		rows, err := s.query(ctx, f.sql)
		switch {
		case err != nil:
			wrong = append(wrong, err)
		case len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] != f.want:
			wrong = append(wrong, fmt.Errorf("%s: the answer is %q, it should be %s", f.what, rows, f.want))
		}
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Print("Checked: 39,244 edits by 10,531 users; Wikipedia:Vandalismusmeldung was edited 33 times; 11,549 edits in #en.wikipedia.\n\n")
	return nil
}
