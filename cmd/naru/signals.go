package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// interrupts listens for SIGINT, SIGTERM and the hang-up of a terminal (unless,
// as under nohup, that is ignored): the first ends the soft context,
// the second the hard one. stop takes the listening back.
func interrupts(parent context.Context) (soft, hard context.Context, stop func()) {
	if parent == nil {
		parent = context.Background()
	}
	hard, cut := context.WithCancel(parent)
	soft, end := context.WithCancel(hard)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(got, syscall.SIGHUP)
	}
	go func() { // ends with the hard context
		for _, cancel := range []context.CancelFunc{end, cut} {
			select {
			case <-got:
				cancel()
			case <-hard.Done():
				return
			}
		}
	}()
	return soft, hard, func() {
		signal.Stop(got)
		cut()
		end()
	}
}
