package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strconv"
)

// readAnswer reads an HTTP/1.1 answer and its body, into buf when it has room.
// The load generator shares the machine with the server: net/http's reader
// would take more time for an answer of 100 bytes than the server for an event.
func readAnswer(in *bufio.Reader, buf []byte) (status int, body []byte, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, nil, errors.New("not an HTTP answer")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, err
	}
	length, chunked := 0, false
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return status, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return status, nil, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		if body, err = io.ReadAll(httputil.NewChunkedReader(in)); err != nil {
			return status, nil, err
		}
		_, err = in.Discard(len("\r\n")) // behind the last chunk; no server here sends trailers
		return status, body, err
	}
	if cap(buf) < length {
		buf = make([]byte, length)
	}
	body = buf[:length]
	_, err = io.ReadFull(in, body)
	return status, body, err
}

// lastOffset is the highest offset that an answer of naru names: of a body whose
// events all went into one partition, that of its last event.
func lastOffset(answer []byte) (int64, error) {
	const key = `"last":`
	i := bytes.LastIndex(answer, []byte(key))
	if i < 0 {
		return 0, errors.New("no offset in the answer")
	}
	digits := bytes.TrimLeft(answer[i+len(key):], " ")
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	return strconv.ParseInt(string(digits[:end]), 10, 64)
}
