package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// conn speaks RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/)
// over one connection. Transactions belong to a connection, so it is never replaced
// behind the back of its user. An error that is no replyError leaves it unusable.
type conn struct {
	raw     net.Conn
	in      *bufio.Reader
	timeout time.Duration
}

// replyError is an error that the server answers with: "WRONGTYPE Operation ...".
type replyError string

func (e replyError) Error() string { return string(e) }

// code is its first word.
func (e replyError) code() string {
	for i := range len(e) {
		if e[i] == ' ' {
			return string(e[:i])
		}
	}
	return string(e)
}

func newConn(raw net.Conn, timeout time.Duration) *conn {
	return &conn{raw: raw, in: bufio.NewReaderSize(raw, 32<<10), timeout: timeout}
}

func (c *conn) Close() error { return c.raw.Close() }

// guard bounds what follows by the timeout and by ctx, until done is called.
func (c *conn) guard(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.raw.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }, nil
}

// do sends one command and returns its answer.
func (c *conn) do(ctx context.Context, args ...string) (any, error) {
	answers, err := c.send(ctx, appendCommand(nil, args...), 1)
	if err != nil {
		return nil, err
	}
	if e, ok := answers[0].(replyError); ok {
		return nil, e
	}
	return answers[0], nil
}

// send sends n commands at once and returns their answers, in order: nil, string,
// int64, []any, or replyError.
func (c *conn) send(ctx context.Context, commands []byte, n int) ([]any, error) {
	done, err := c.guard(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := c.raw.Write(commands); err != nil {
		return nil, err
	}
	answers := make([]any, n)
	for i := range answers {
		if answers[i], err = c.read(0); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// appendCommand appends a command as an array of texts.
func appendCommand[T string | []byte](dst []byte, args ...T) []byte {
	dst = append(strconv.AppendInt(append(dst, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		dst = appendText(dst, a)
	}
	return dst
}

func appendText[T string | []byte](dst []byte, a T) []byte {
	dst = append(strconv.AppendInt(append(dst, '$'), int64(len(a)), 10), "\r\n"...)
	return append(append(dst, a...), "\r\n"...)
}

// What an answer may hold at most; the largest is that of EXEC, a number or an id
// for each command.
const (
	longestText  = 1 << 20
	longestArray = 1 << 26
	deepest      = 4
)

var errProtocol = errors.New("read answer of redis: not RESP2")

func (c *conn) read(depth int) (any, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, errProtocol
		}
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, errProtocol
	}
	kind, text := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+':
		return text, nil
	case '-':
		return replyError(text), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, errProtocol
	}
	switch kind {
	case ':':
		return n, nil
	case '$':
		if n == -1 {
			return nil, nil
		}
		if n < 0 || n > longestText {
			return nil, fmt.Errorf("%w: a text of %d bytes", errProtocol, n)
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case '*':
		if n == -1 {
			return nil, nil
		}
		if n < 0 || n > longestArray || depth == deepest {
			return nil, fmt.Errorf("%w: a list of %d", errProtocol, n)
		}
		list := make([]any, 0, min(n, 1<<16))
		for range n {
			v, err := c.read(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return nil, errProtocol
}
