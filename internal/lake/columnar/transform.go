package columnar

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"time"
)

// Transform makes the value of a partition from that of a column, as Iceberg's
// specification has it. Null stays null.
type Transform uint8

// The transforms.
const (
	Identity Transform = iota + 1 // the value itself
	Year                          // years since 1970
	Month                         // months since 1970-01
	Day                           // days since 1970-01-01
	Hour                          // hours since 1970-01-01T00Z
	Bucket                        // Murmur3 hash, positive, modulo the number of buckets
)

var transformNames = [...]string{Identity: "identity", Year: "year", Month: "month", Day: "day", Hour: "hour", Bucket: "bucket"}

// String gives Iceberg's word.
func (t Transform) String() string { return transformNames[t] }

func parseTransform(s string) (Transform, bool) {
	for t, name := range transformNames {
		if name == s && name != "" {
			return Transform(t), true
		}
	}
	return 0, false
}

// takes tells whether the transform can be made of values of a kind.
func (t Transform) takes(k Kind) bool {
	switch t {
	case Identity:
		return k == Bool || k == Long || k == Int || k == String || k == Date
	case Year, Month, Day:
		return k == Timestamp || k == Date
	case Hour:
		return k == Timestamp
	case Bucket:
		return k == Long || k == Int || k == String || k == Timestamp || k == Date
	}
	return false
}

// PartitionValue is what the rows of a file share: of Identity the column's value
// (a bool as 0 or 1), else the transform's number.
type PartitionValue struct {
	Null bool
	Long int64
	Text string // of Identity over texts
}

// of gives the value of a row.
func (p PartitionField) of(col *column, row int) PartitionValue {
	if col.isNull(row) {
		return PartitionValue{Null: true}
	}
	if col.kind == String {
		if p.Transform == Bucket {
			return PartitionValue{Long: p.bucket(murmur3(col.textAt(row)))}
		}
		return PartitionValue{Text: string(col.textAt(row))}
	}
	return PartitionValue{Long: p.number(col.kind, col.whole(row))}
}

// number is the transform of what column.whole gives.
func (p PartitionField) number(k Kind, v int64) int64 {
	switch p.Transform {
	case Bucket:
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(v))
		return p.bucket(murmur3(b[:]))
	case Hour:
		return floor(v, microsPerHour)
	case Year, Month, Day:
		if k == Timestamp {
			v = floor(v, microsPerDay)
		}
		if p.Transform == Day {
			return v
		}
		t := time.Unix(v*86400, 0).UTC()
		if p.Transform == Year {
			return int64(t.Year()) - 1970
		}
		return int64(t.Year()-1970)*12 + int64(t.Month()) - 1
	}
	return v
}

func (p PartitionField) bucket(hash uint32) int64 {
	return int64(hash&0x7fffffff) % int64(p.Buckets)
}

const microsPerHour = 60 * 60 * 1e6

// floor divides down, also below zero.
func floor(v, by int64) int64 {
	q := v / by
	if v%by < 0 {
		q--
	}
	return q
}

// text is a value as people read it in the name of a folder.
func (p PartitionField) text(k Kind, v PartitionValue) string {
	if v.Null {
		return "null"
	}
	switch p.Transform {
	case Year:
		return strconv.FormatInt(v.Long+1970, 10)
	case Month:
		return time.Date(1970, time.Month(v.Long+1), 1, 0, 0, 0, 0, time.UTC).Format("2006-01")
	case Day:
		return time.Unix(v.Long*86400, 0).UTC().Format(time.DateOnly)
	case Hour:
		return time.Unix(v.Long*3600, 0).UTC().Format("2006-01-02-15")
	case Identity:
		switch k {
		case String:
			return v.Text
		case Bool:
			return strconv.FormatBool(v.Long != 0)
		case Date:
			return time.Unix(v.Long*86400, 0).UTC().Format(time.DateOnly)
		}
	}
	return strconv.FormatInt(v.Long, 10)
}

// whole is the value of a row that is not null, of a column that holds whole
// numbers, times, dates or booleans.
func (c *column) whole(row int) int64 {
	switch c.kind {
	case Bool:
		return int64(c.bools[row>>3] >> (row & 7) & 1)
	case Int, Date:
		return int64(c.ints[row])
	}
	return c.longs[row]
}

// murmur3 is MurmurHash3, x86, 32 bits, seed 0: Iceberg's specification, appendix B.
func murmur3(b []byte) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	h, n := uint32(0), uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * c1
		h ^= bits.RotateLeft32(k, 15) * c2
		h = bits.RotateLeft32(h, 13)*5 + 0xe6546b64
	}
	var k uint32
	for i := len(b) - 1; i >= 0; i-- {
		k = k<<8 | uint32(b[i])
	}
	h ^= bits.RotateLeft32(k*c1, 15) * c2
	h ^= n
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
