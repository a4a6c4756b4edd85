package sink

import (
	"encoding/hex"
	"strconv"

	"naru/internal/event"
)

// AppendKey appends the name that a row has for good, as text: incarnation (32
// hexadecimal digits), partition, offset and number of the row, "8f0e...2a/0/1742/0".
// Read again, a row has the same key and no other row has it: a target without
// transactions knows by it what it has already. At most 74 bytes.
func AppendKey(dst []byte, at event.Position, row int32) []byte {
	dst = append(hex.AppendEncode(dst, at.Incarnation[:]), '/')
	dst = append(strconv.AppendInt(dst, int64(at.Partition), 10), '/')
	dst = append(strconv.AppendInt(dst, at.Offset, 10), '/')
	return strconv.AppendInt(dst, int64(row), 10)
}
