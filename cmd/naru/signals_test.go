package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
	"testing"
)

func TestInterrupts(t *testing.T) {
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
	if signal.Ignored(syscall.SIGHUP) {
		signals = signals[:2] // under nohup a hang-up is not heeded, and cannot be undone here
	}
	for _, sig := range signals {
		soft, hard, stop := interrupts(t.Context())
		for _, ctx := range []context.Context{soft, hard} {
			if ctx.Err() != nil {
				t.Fatal("ended before its signal")
			}
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
		}
		stop()
	}
}

func TestCuttable(t *testing.T) {
	cut, end := context.WithCancel(t.Context())
	boom := errors.New("boom")
	if err := cuttable(cut, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	hangs := make(chan struct{})
	defer close(hangs)
	end()
	if err := cuttable(cut, func() error { <-hangs; return nil }); !errors.Is(err, errCut) || exitCode(err) != exitInterrupted {
		t.Errorf("cut: %v", err)
	}
}
