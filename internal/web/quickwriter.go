package web

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// quickWriter gathers an answer and writes it at once.
type quickWriter struct {
	c      *quickConn
	fields http.Header
	status int
	body   []byte
	text   []byte // what goes out
}

func (w *quickWriter) reset() {
	clear(w.fields)
	w.status, w.body = 0, w.body[:0]
	if cap(w.body) > quickKeep {
		w.body = nil
	}
	if cap(w.text) > quickKeep {
		w.text = nil
	}
}

// Header implements http.ResponseWriter.
func (w *quickWriter) Header() http.Header { return w.fields }

// WriteHeader implements http.ResponseWriter.
func (w *quickWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *quickWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// SetReadDeadline is for a body that is still to come.
func (w *quickWriter) SetReadDeadline(t time.Time) error {
	c := w.c
	if int64(c.to-c.from) >= c.body.left {
		return nil // it is here
	}
	c.until = time.Time{}
	return c.conn.SetReadDeadline(t)
}

// SetWriteDeadline lets a handler choose its own deadline.
func (w *quickWriter) SetWriteDeadline(t time.Time) error { return w.c.conn.SetWriteDeadline(t) }

// bare statuses have no body.
func bare(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// send writes the answer; false: the connection cannot be used again. stay is
// false when it ends behind the answer in any case.
func (w *quickWriter) send(stay bool) bool {
	w.WriteHeader(http.StatusOK)
	b := append(w.text[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(append(append(b, ' '), http.StatusText(w.status)...), "\r\nDate: "...)
	b = append(append(b, date()...), "\r\n"...)
	for key, values := range w.fields {
		if key == "Connection" {
			stay = stay && !strings.EqualFold(values[0], "close")
			continue
		}
		if key == "Content-Length" || key == "Date" {
			continue
		}
		for _, v := range values {
			b = append(append(b, key...), ": "...)
			b = append(append(b, oneLine.Replace(v)...), "\r\n"...)
		}
	}
	if !stay {
		b = append(b, "Connection: close\r\n"...)
	}
	if !bare(w.status) {
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(w.body)), 10), "\r\n"...)
	}
	b = append(b, "\r\n"...)
	if !bare(w.status) {
		b = append(b, w.body...)
	}
	w.text = b
	_, err := w.c.conn.Write(b)
	return err == nil && stay
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// dated is the header Date for one second.
type dated struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dated]

func date() string {
	now := time.Now()
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
