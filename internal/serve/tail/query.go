package tail

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"naru/internal/event"
)

// errQuery: a query parameter is wrong.
var errQuery = errors.New("query parameter")

// maxLast bounds last=, whose events are counted before they are sent.
const maxLast = 100_000

// query says which events are wanted.
type query struct {
	from      string         // start, end, offset or position
	at        event.Position // when from is one; without an incarnation the current one is meant
	last      int            // so many before the end; -1 when from counts
	limit     int            // -1: no limit
	partition int32
	follow    bool
}

func parseQuery(values map[string][]string) (q query, err error) {
	q = query{last: -1, limit: -1}
	for name, v := range values {
		if len(v) != 1 {
			return q, fmt.Errorf("%w %s: is given %d times", errQuery, name, len(v))
		}
		switch name {
		case "from":
			q.from, q.at, err = parseFrom(v[0])
		case "last":
			q.last, err = number(v[0], maxLast)
		case "limit":
			q.limit, err = number(v[0], 1<<31-1)
		case "partition":
			var n int
			n, err = number(v[0], 1<<31-1)
			q.partition = int32(n)
		case "follow":
			if q.follow = v[0] == "true"; !q.follow && v[0] != "false" {
				err = fmt.Errorf("%q is neither true nor false", v[0])
			}
		default:
			err = errors.New("is unknown; there are from, last, limit, partition and follow")
		}
		if err != nil {
			return q, fmt.Errorf("%w %s: %w", errQuery, name, err)
		}
	}
	if q.from != "" && q.last >= 0 {
		return q, fmt.Errorf("%w last: goes with follow and limit, not with from", errQuery)
	}
	if q.from == "" && q.last < 0 {
		if q.from = "start"; q.follow {
			q.from = "end"
		}
	}
	if !q.at.Incarnation.IsZero() {
		if slices.Contains([]int32{0, q.at.Partition}, q.partition) {
			q.partition = q.at.Partition
		} else {
			return q, fmt.Errorf("%w from: is a position in partition %d, partition says %d", errQuery, q.at.Partition, q.partition)
		}
	}
	return q, nil
}

func number(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is not a whole number from 0 to %d", s, most)
	}
	return n, nil
}

// parseFrom reads start, end, an offset, or INCARNATION/PARTITION/OFFSET.
func parseFrom(s string) (string, event.Position, error) {
	var at event.Position
	if s == "start" || s == "end" {
		return s, at, nil
	}
	bad := fmt.Errorf("%q is not start, end, an offset, or a position INCARNATION/PARTITION/OFFSET", s)
	parts := strings.Split(s, "/")
	if len(parts) == 3 {
		inc, err := event.ParseIncarnation(parts[0])
		if err != nil {
			return "", at, bad
		}
		p, err := strconv.ParseInt(parts[1], 10, 32)
		if err != nil || p < 0 {
			return "", at, bad
		}
		at.Incarnation, at.Partition = inc, int32(p)
	} else if len(parts) != 1 {
		return "", at, bad
	}
	offset, err := strconv.ParseInt(parts[len(parts)-1], 10, 64)
	if err != nil || offset < 0 {
		return "", at, bad
	}
	at.Offset = offset
	return "at", at, nil
}
