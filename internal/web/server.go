package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// drainRetry is when clients should come back to a process that is stopping.
const drainRetry = 2 * time.Second

// Server is an HTTP/1.1 server with limits on everything a client can hold, and
// a drain: once stopping, new requests get 503 while those in flight are
// answered.
type Server struct {
	cfg  Config
	next http.Handler
	log  *slog.Logger
	http http.Server

	quick  *quick // nil: net/http serves all
	ln     atomic.Pointer[limited]
	closed atomic.Bool // the listener is, by us

	draining atomic.Bool
	why      atomic.Pointer[string] // it drains, when that is nobody's wish
	inFlight atomic.Int64
	empty    chan struct{} // gets a token when the last request ends while draining
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg Config, handler http.Handler, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, next: handler, log: log, empty: make(chan struct{}, 1)}
	s.http = http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: cfg.HeaderTimeout.Std(),
		IdleTimeout:       cfg.IdleTimeout.Std(),
		// The library reads 4 KiB more than it is told.
		MaxHeaderBytes: int(cfg.Headers) - 4096,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken clients are no news
	}
	return s
}

// Quick serves plain POSTs to the paths, as they stand there, on the quick path.
// Their handlers write short answers. It is called before Serve.
func (s *Server) Quick(paths ...string) {
	s.quick = &quick{s: s, paths: map[string]bool{}}
	s.quick.mu.conns = map[*quickConn]bool{}
	for _, p := range paths {
		s.quick.paths[p] = true
	}
}

// Serve answers connections of ln until Drain or Close; it returns nil then.
func (s *Server) Serve(ln net.Listener) error {
	limited := limitListener(ln, s.cfg.Connections, s.cfg.StallTimeout.Std())
	if s.quick == nil {
		return s.served(ln, s.http.Serve(limited))
	}
	s.ln.Store(limited)
	s.quick.others = newHandover(ln.Addr())
	others := make(chan error, 1)
	go func() {
		others <- s.http.Serve(s.quick.others)
		_ = limited.Close() // whichever ends first ends the other
	}()
	err := s.quick.accept(limited)
	_ = s.quick.others.Close()
	if over := <-others; errors.Is(over, http.ErrServerClosed) || s.closed.Load() {
		err = http.ErrServerClosed
	}
	return s.served(ln, err)
}

func (s *Server) served(ln net.Listener, err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", ln.Addr(), err)
}

// InFlight is the number of requests being answered.
func (s *Server) InFlight() int64 { return s.inFlight.Load() }

// Refuse makes every further request 503 with Retry-After and Connection: close.
func (s *Server) Refuse() { s.draining.Store(true) }

// Because tells requests that are refused while draining why the server stops.
func (s *Server) Because(err error) {
	why := err.Error()
	s.why.Store(&why)
}

// Drain refuses new requests, waits for those in flight and then closes the
// listeners and connections. When ctx ends first, what is left is cut and the
// context's error returned.
func (s *Server) Drain(ctx context.Context) error {
	s.Refuse()
	for s.inFlight.Load() > 0 {
		select {
		case <-s.empty:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("drain %d requests: %w", s.inFlight.Load(), ctx.Err()), s.Close())
		}
	}
	if err := s.closeListener(); err != nil {
		return errors.Join(err, s.Close())
	}
	if s.quick != nil {
		if err := s.quick.drain(ctx); err != nil {
			return errors.Join(fmt.Errorf("shut down server: %w", err), s.Close())
		}
	}
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down server: %w", err), s.Close())
	}
	return nil
}

// Close cuts everything at once.
func (s *Server) Close() error {
	err := errors.Join(s.http.Close(), s.closeListener())
	if s.quick != nil {
		s.quick.close(true)
	}
	return err
}

// closeListener closes the listener where net/http does not have it.
func (s *Server) closeListener() error {
	ln := s.ln.Load()
	if ln == nil {
		return nil
	}
	s.closed.Store(true)
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.inFlight.Add(1)
	defer s.ended()
	rw := &response{ResponseWriter: w}
	defer s.recovered(rw, r)
	if body := r.Body; body != nil && body != http.NoBody {
		rw.body.begin(body, w, s.cfg)
		r.Body = &rw.body
		// The library looks at the body again when it sends the answer: what
		// was not read must not be asked for (Expect: 100-continue).
		defer func() { r.Body = body }()
	}
	if s.draining.Load() {
		detail := "the server is being stopped and takes nothing new; send the same request again after Retry-After"
		if why := s.why.Load(); why != nil {
			detail += "; it stops because of this: " + *why
		}
		Fail(rw, &Error{Status: http.StatusServiceUnavailable, Title: "stopping", RetryAfter: drainRetry, Close: true, Detail: detail})
		return
	}
	s.next.ServeHTTP(rw, r)
}

// ended counts a request out and wakes Drain behind the last one.
func (s *Server) ended() {
	if s.inFlight.Add(-1) == 0 && s.draining.Load() {
		select {
		case s.empty <- struct{}{}:
		default:
		}
	}
}

// recovered answers for a handler that panicked, and keeps the process alive.
// http.ErrAbortHandler is how a handler asks for a cut connection, and what
// cuts one whose answer was already begun.
func (s *Server) recovered(rw *response, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if rw.wrote {
		panic(http.ErrAbortHandler)
	}
	Fail(rw, &Error{
		Status: http.StatusInternalServerError, Title: "internal error", Close: true,
		Detail: "a defect in naru broke this request; the log of the server says where",
	})
}

// response knows whether an answer was begun. It also holds the guarded body,
// so that both take one allocation.
type response struct {
	http.ResponseWriter
	wrote bool
	body  pacedBody
}

func (r *response) WriteHeader(status int) {
	r.wrote = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(p []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the connection.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush implements http.Flusher.
func (r *response) Flush() {
	if f, ok := r.ResponseWriter.(http.Flusher); ok {
		r.wrote = true
		f.Flush()
	}
}
