// Package simulation runs the whole of naru but its network on one simulated
// machine: the front door, the embedded log, the pipelines, the tables and their
// commits, on a disk in memory that loses power, fails and fills up, with a
// catalog that loses answers, under a clock that jumps. Its tests count in the
// end every event that a client was told is stored: each is there once.
//
// It is tests only. A failure prints its seed and how to run it again; goroutines
// are scheduled by the Go runtime, so a seed gives the same input and the same
// plan, but not always the same moment.
package simulation
