package simulation

import (
	"fmt"
	"sync"

	"naru/internal/contract"
	"naru/internal/vfs"
)

// Some types have a contract: level is at most maxLevel, and mail is not stored as
// it is. For one of them it only observes.
const maxLevel = 9

var contracted = map[string]contract.Mode{"order.paid": contract.Enforce, "x": contract.Enforce, "login": contract.Observe}

const contractText = `apiVersion: v3.1.0
kind: DataContract
id: contract of %[1]s
version: 1.0.0
status: active
customProperties: [{property: naru.mode, value: %[2]s}]
schema:
  - name: %[1]s
    properties:
      - {name: level, logicalType: integer, required: true, logicalTypeOptions: {maximum: %[3]d}}
      - {name: mail, logicalType: string, customProperties: [{property: naru.pii, value: hash}]}
      - {name: phone, logicalType: string, customProperties: [{property: naru.pii, value: drop}]}
      - {name: inner, logicalType: object, properties: [{name: a, logicalType: integer}]}
    customProperties: [{property: naru.jsonStrings, value: [inner]}]
`

// theContracts are compiled once.
var theContracts = sync.OnceValue(func() *contract.Set {
	var files []contract.File
	for typ, mode := range contracted {
		files = append(files, contract.File{Name: typ + ".yaml", Data: fmt.Appendf(nil, contractText, typ, mode, maxLevel)})
	}
	set, problems := contract.Compile(files)
	if problems != nil {
		panic(problems)
	}
	return set
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
	level := c.rng.IntN(maxLevel + 3)
	fields = fmt.Sprintf(`,"level":%d,"mail":"PERSONAL%d","phone":"PERSONAL","inner":"{\"a\":%d}"`, level, c.seq%3, c.seq%7)
	return fields, mode == contract.Enforce && level > maxLevel
}
