package recordbatch

import (
	"encoding/binary"
	"hash/crc32"
)

func fixCRC(raw []byte) {
	binary.BigEndian.PutUint32(raw[crcOff:], crc32.Checksum(raw[attrOff:], castagnoli))
}
