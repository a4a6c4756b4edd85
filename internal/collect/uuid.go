package collect

import (
	"encoding/hex"
	"math/rand/v2"
)

// idMaker makes UUIDs of version 7 (RFC 9562). The first of a request has 72
// random bits; each further one counts up, as 6.2 of the RFC allows (method 2),
// so that the ids of a batch ascend, cost little and compress well.
type idMaker struct {
	text  [36]byte
	begun bool
}

// next returns the next id in text form, valid until the following call. ms is
// the Unix time in milliseconds of the first one.
func (g *idMaker) next(ms int64) []byte {
	if !g.begun {
		g.begin(ms)
		return g.text[:]
	}
	for i := len(g.text) - 1; ; i-- {
		switch c := g.text[i]; c {
		case '-':
		case 'f':
			g.text[i] = '0'
		case '9':
			g.text[i] = 'a'
			return g.text[:]
		default:
			g.text[i] = c + 1
			return g.text[:]
		}
	}
}

func (g *idMaker) begin(ms int64) {
	g.begun = true
	var id [16]byte
	high, low := rand.Uint64(), rand.Uint64()
	id[0], id[1], id[2] = byte(ms>>40), byte(ms>>32), byte(ms>>24)
	id[3], id[4], id[5] = byte(ms>>16), byte(ms>>8), byte(ms)
	id[6] = 0x70 | byte(high>>8)&0x0f
	id[7] = byte(high)
	// The variant is 10; the next two bits stay 0, so that counting up never
	// runs into it.
	id[8] = 0x80 | byte(low>>56)&0x0f
	for i := 1; i < 8; i++ {
		id[8+i] = byte(low >> (56 - 8*i))
	}
	hex.Encode(g.text[0:8], id[0:4])
	hex.Encode(g.text[9:13], id[4:6])
	hex.Encode(g.text[14:18], id[6:8])
	hex.Encode(g.text[19:23], id[8:10])
	hex.Encode(g.text[24:36], id[10:16])
	g.text[8], g.text[13], g.text[18], g.text[23] = '-', '-', '-', '-'
}
