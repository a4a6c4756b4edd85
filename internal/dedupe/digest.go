package dedupe

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/xxh3"

	"naru/internal/event"
)

// Key is the 128-bit XXH3 hash of an event's source and id.
type Key struct{ Hi, Lo uint64 }

// digester hashes events; it keeps a buffer.
type digester struct{ buf []byte }

// key hashes (source, id), with the source's length before both: "a" + "bc" is
// not "ab" + "c".
func (d *digester) key(e *event.Event) Key {
	b := binary.AppendUvarint(d.buf[:0], uint64(len(e.Source)))
	b = append(b, e.Source...)
	b = append(b, e.ID...)
	d.buf = b
	h := xxh3.Hash128(b)
	return Key{Hi: h.Hi, Lo: h.Lo}
}

// digest hashes what an event says besides its key, as it was sent.
func (d *digester) digest(e *event.Event) uint64 {
	if len(e.Sent) == 16 {
		var b [8]byte
		if _, err := hex.Decode(b[:], e.Sent); err == nil {
			return binary.BigEndian.Uint64(b[:])
		}
	}
	b := d.buf[:0]
	b = appendText(b, e.Type)
	b = appendText(b, e.Subject)
	b = appendText(b, e.ContentType)
	if e.Time.IsZero() {
		b = append(b, 0)
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 1), uint64(e.Time.UnixNano()))
	}
	for _, x := range e.Extensions {
		b = appendText(appendText(b, x.Name), x.Value)
	}
	d.buf = b
	return xxh3.HashSeed(e.Data, xxh3.Hash(b))
}

func appendText(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
