// Package e2e drives the real binary from outside: over HTTP, through the
// command line, by signals, and by what it leaves on the disk. It imports
// nothing of naru, so that a test here knows no more than a user does.
//
// NARU_BIN names a binary to test instead of building one.
package e2e
