package simulation

import (
	"fmt"
	"sync"

	"naru/internal/contract"
	"naru/internal/lake"
	"naru/internal/vfs"
)

// Some types have a contract: level is at most maxLevel, and mail is not stored as
// it is. For one of them it only observes. A looser one of those that enforce lets
// in every level that there is.
const (
	maxLevel   = 9
	looseLevel = maxLevel + 3
)

var contracted = map[string]contract.Mode{"order.paid": contract.Enforce, "x": contract.Enforce, "login": contract.Observe}

const contractText = `apiVersion: v3.1.0
kind: DataContract
id: contract of %[1]s
version: %[5]s
status: active
customProperties: [{property: naru.mode, value: %[2]s}]
schema:
  - name: %[1]s
    properties:
      - {name: k, logicalType: string}
      - {name: level, logicalType: integer, required: true, logicalTypeOptions: {maximum: %[3]d}}
      - {name: mail, logicalType: string, customProperties: [{property: naru.pii, value: hash}]}
      - {name: phone, logicalType: string, customProperties: [{property: naru.pii, value: drop}]}
      - {name: inner, logicalType: object, properties: [{name: a, logicalType: integer}]}
      - {name: seen, logicalType: timestamp}
      - {name: born, logicalType: date}
      - {name: never, logicalType: number}
    customProperties:
      - {property: naru.jsonStrings, value: [inner]}
%[4]s`

// askedTables are the tables that some types ask for in the second version of the
// contracts; that of another type was its own one until then.
var askedTables = map[string]string{"order.paid": "orders", "login": "people"}

// discarding is a type whose further fields have no columns in that version.
const discarding = "x"

// askedLayouts are partition and order that types ask for, in either version. The
// table of one of them stays the same and is laid out anew.
var askedLayouts = map[string][2][2]string{
	"x":          {{"[month(seen), \"bucket(2, level)\"]", "[level desc, seen]"}, {"[\"bucket(2, _id)\"]", "none"}},
	"order.paid": {{"none", "[born]"}, {"[day(_time)]", "[mail, born desc]"}},
}

// theContracts, and those that are loosened, are compiled once, in their two versions.
var (
	theContracts   = sync.OnceValue(func() [2]*contract.Set { return compiled("1.0.0", maxLevel) })
	looseContracts = sync.OnceValue(func() [2]*contract.Set { return compiled("1.1.0", looseLevel) })
)

// compiled has a maximum for those that enforce.
func compiled(name string, maximum int) (sets [2]*contract.Set) {
	for version := range sets {
		var files []contract.File
		for typ, mode := range contracted {
			asked, name, maximum := "", name, maximum
			if name := askedTables[typ]; version > 0 && name != "" {
				asked = "      - {property: naru.table, value: " + name + "}\n"
			}
			if version > 0 && typ == discarding {
				asked += "      - {property: naru.unknownFields, value: discard}\n"
			}
			if layout, ok := askedLayouts[typ]; ok {
				asked += "      - {property: naru.partition, value: " + layout[version][0] + "}\n      - {property: naru.sort, value: " + layout[version][1] + "}\n"
			}
			if mode == contract.Observe {
				name, maximum = "1.0.0", maxLevel
			}
			files = append(files, contract.File{Name: typ + ".yaml", Data: fmt.Appendf(nil, contractText, typ, mode, maximum, asked, name)})
		}
		set, problems := contract.Compile(files)
		if problems != nil {
			panic(problems)
		}
		sets[version] = set
	}
	return sets
}

// contracts are those in force.
func (p *process) contracts() *contract.Set {
	if p.loose.Load() {
		return looseContracts()[p.version]
	}
	return theContracts()[p.version]
}

// shapesOf gives what contracts say of tables, by their hashes.
func shapesOf(sets ...*contract.Set) map[string]*lake.Shape {
	out := map[string]*lake.Shape{}
	for _, set := range sets {
		for _, c := range set.Contracts {
			out[c.Hash] = c.Shape()
		}
	}
	return out
}

// homeOf is the table of an event by its type and the hash of its contract.
func homeOf(typ string, hash []byte) string {
	if name := allShapes()[string(hash)].Name(); name != "" {
		return name
	}
	return lake.TableName(typ)
}

// knownOf are the fields that rows of the contract with that hash have; nil: all.
func knownOf(hash []byte) *lake.Known {
	if s := allShapes()[string(hash)]; s != nil {
		return s.Known
	}
	return nil
}

var allShapes = sync.OnceValue(func() map[string]*lake.Shape {
	strict, loose := theContracts(), looseContracts()
	return shapesOf(append(strict[:], loose[:]...)...)
})

var theKeys = sync.OnceValue(func() *contract.Keys {
	k, err := contract.LoadKeys(vfs.NewMemory(), "/", contract.PIIConfig{Keys: []string{"k=env:K"}}, func(string) string { return "0123456789abcdef" }, nil)
	if err != nil {
		panic(err)
	}
	return k
})

// agreed are the fields of a type that has a contract, and whether they break it.
func (c *client) agreed(typ string) (fields string, breaks bool) {
	mode, ok := contracted[typ]
	if !ok {
		return "", false
	}
	level := c.rng.IntN(looseLevel)
	fields = fmt.Sprintf(`,"level":%d,"mail":"PERSONAL%d","phone":"PERSONAL","inner":"{\"a\":%d}","seen":"2015-09-12T%02d:00:00.25+09:00","born":"2015-09-%02d"`,
		level, c.seq%3, c.seq%7, c.seq%24, 1+c.seq%30)
	return fields, mode == contract.Enforce && level > maxLevel
}
