package sink

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"naru/internal/event"
)

// AppendKey appends the name that a row has for good, as text: incarnation (32
// hexadecimal digits), partition, offset and number of the row, "8f0e...2a/0/1742/0".
// at is event.Event.Place of the row. Read again, a row has the same key and no other
// row has it: a target without transactions knows by it what it has already. At most 74
// bytes.
func AppendKey(dst []byte, at event.Position, row int32) []byte {
	dst = append(hex.AppendEncode(dst, at.Incarnation[:]), '/')
	dst = append(strconv.AppendInt(dst, int64(at.Partition), 10), '/')
	dst = append(strconv.AppendInt(dst, at.Offset, 10), '/')
	return strconv.AppendInt(dst, int64(row), 10)
}

// ParseKey reads what AppendKey has written.
func ParseKey(key string) (at event.Position, row int32, err error) {
	part := strings.Split(key, "/")
	bad := fmt.Errorf("parse key of a row %q: not INCARNATION/PARTITION/OFFSET/ROW", key)
	if len(part) != 4 || len(part[0]) != 2*len(at.Incarnation) {
		return at, 0, bad
	}
	if _, err := hex.Decode(at.Incarnation[:], []byte(part[0])); err != nil {
		return at, 0, bad
	}
	partition, err1 := strconv.ParseInt(part[1], 10, 32)
	offset, err2 := strconv.ParseInt(part[2], 10, 64)
	n, err3 := strconv.ParseInt(part[3], 10, 32)
	if err1 != nil || err2 != nil || err3 != nil || partition < 0 || offset < 0 || n < 0 {
		return at, 0, bad
	}
	at.Partition, at.Offset = int32(partition), offset
	return at, int32(n), nil
}
