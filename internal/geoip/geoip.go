// Package geoip reads MaxMind databases (MMDB): where an IP address is, as far as
// the file knows. It holds the files that are open.
package geoip

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/oschwald/maxminddb-golang"
)

// Files are databases by their paths. A file that was replaced is read anew, at most
// some seconds later. Safe for concurrent use.
type Files struct {
	mu struct {
		sync.RWMutex
		open map[string]*database
	}
}

type database struct {
	reader *maxminddb.Reader
	stat   os.FileInfo
	looked time.Time
}

// lookEvery is how often the file is looked at.
const lookEvery = 10 * time.Second

// Parts are what can be asked of an address.
var Parts = []string{"country", "country_name", "region", "city", "postal_code", "latitude", "longitude", "time_zone", "asn", "organization"}

// place is what the databases of MaxMind, DB-IP and IPinfo call what we look for.
type place struct {
	Country struct {
		Code  string            `maxminddb:"iso_code"`
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"country"`
	Regions []struct {
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"subdivisions"`
	City struct {
		Names map[string]string `maxminddb:"names"`
	} `maxminddb:"city"`
	Postal struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"postal"`
	Location struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
		TimeZone  string   `maxminddb:"time_zone"`
	} `maxminddb:"location"`
	ASN          uint64 `maxminddb:"autonomous_system_number"`
	Organization string `maxminddb:"autonomous_system_organization"`
}

// Open reads the head of a file, and tells what is wrong with it.
func (f *Files) Open(path string) error {
	_, err := f.get(path)
	return err
}

// Part gives a part of what the database says of an address; false: nothing, or it is
// no address. The parts are Parts.
func (f *Files) Part(path, ip, part string) (string, bool, error) {
	db, err := f.get(path)
	if err != nil {
		return "", false, err
	}
	address := net.ParseIP(ip)
	if address == nil {
		return "", false, nil
	}
	var p place
	if err := db.reader.Lookup(address, &p); err != nil {
		return "", false, nil // an IPv6 address in a database of IPv4 ones
	}
	text := ""
	switch part {
	case "country":
		text = p.Country.Code
	case "country_name":
		text = p.Country.Names["en"]
	case "region":
		if len(p.Regions) > 0 {
			text = p.Regions[0].Names["en"]
		}
	case "city":
		text = p.City.Names["en"]
	case "postal_code":
		text = p.Postal.Code
	case "latitude":
		text = number(p.Location.Latitude)
	case "longitude":
		text = number(p.Location.Longitude)
	case "time_zone":
		text = p.Location.TimeZone
	case "asn":
		if p.ASN > 0 {
			text = strconv.FormatUint(p.ASN, 10)
		}
	case "organization":
		text = p.Organization
	}
	return text, text != "", nil
}

func number(f *float64) string {
	if f == nil {
		return ""
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}

// get gives the database at a path.
func (f *Files) get(path string) (*database, error) {
	f.mu.RLock()
	db := f.mu.open[path]
	fresh := db != nil && time.Since(db.looked) < lookEvery
	f.mu.RUnlock()
	if fresh {
		return db, nil
	}
	f.mu.Lock() // reading under the lock: the others need the same file
	defer f.mu.Unlock()
	if db = f.mu.open[path]; db != nil && time.Since(db.looked) < lookEvery {
		return db, nil
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open database of addresses: %w", err)
	}
	if db != nil && os.SameFile(stat, db.stat) && stat.ModTime().Equal(db.stat.ModTime()) && stat.Size() == db.stat.Size() {
		db.looked = time.Now()
		return db, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read database of addresses: %w", err)
	}
	reader, err := maxminddb.FromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("read database of addresses %s: %w", path, err)
	}
	if f.mu.open == nil {
		f.mu.open = map[string]*database{}
	}
	db = &database{reader: reader, stat: stat, looked: time.Now()}
	f.mu.open[path] = db
	return db, nil
}
