package duck

/*
#include <stdint.h>
#include <stdlib.h>

void naruFunctionCall(void *info, void *chunk, void *result);
*/
import "C"

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/geoip"
	"naru/internal/visit"
)

// stepFunction is a function of naru's own that steps call: texts to a text, or to
// NULL. A NULL among the arguments gives NULL. The texts are valid until it returns.
type stepFunction struct {
	name string
	args int
	call func(args []string) (text string, found bool, err error)
}

// stepFunctions are those of query.StepFunctions.
func (s *Steps) stepFunctions() []stepFunction {
	return append([]stepFunction{{"geoip_part", 3, s.geoipPart}}, visitFunctions...)
}

// functions are those of all instances, by the number that DuckDB knows them by.
var (
	functions   sync.Map // *stepFunction
	functionIDs atomic.Int64
)

// ownFault begins the message of a function that cannot be computed for a reason
// that lies not in its arguments.
const ownFault = "naru: "

// geoipPart reads paths as they stand in steps: from the project's folder.
func (s *Steps) geoipPart(a []string) (string, bool, error) {
	text, found, err := s.geo.Part(s.path(a[1]), a[0], a[2])
	if err != nil {
		return "", false, fmt.Errorf("%s%w", ownFault, err)
	}
	return text, found, known("geoip_part", a[2], found)
}

func (s *Steps) path(file string) string {
	if filepath.IsAbs(file) {
		return filepath.Clean(file)
	}
	return filepath.Join(s.cfg.Folder, file)
}

var visitFunctions = []stepFunction{
	{"url_part", 2, func(a []string) (string, bool, error) {
		text, found := visit.URLPart(a[0], a[1])
		return text, found, known("url_part", a[1], found)
	}},
	{"agent_part", 2, func(a []string) (string, bool, error) {
		text, found := visit.AgentPart(a[0], a[1])
		return text, found, known("agent_part", a[1], found)
	}},
	{"referer_part", 3, func(a []string) (string, bool, error) {
		text, found := visit.RefererPart(a[0], a[1], a[2])
		return text, found, known("referer_part", a[2], found)
	}},
}

// parts are those that functions may be asked for.
var parts = map[string][]string{"url_part": visit.URLParts, "agent_part": visit.AgentParts, "referer_part": visit.RefererParts, "geoip_part": geoip.Parts}

// known says that there is no such part. One that a step names by a constant is found
// before it runs; another one comes of the event.
func known(function, part string, found bool) error {
	switch {
	case found, slices.Contains(parts[function], part), function == "url_part" && strings.HasPrefix(part, "query."):
		return nil
	case function == "url_part":
		return fmt.Errorf("url_part: there is no part %q: there are %s, and query.NAME for a parameter", part, strings.Join(parts[function], ", "))
	}
	return fmt.Errorf("%s: there is no part %q: there are %s", function, part, strings.Join(parts[function], ", "))
}

// registerFunctions makes the functions known to an instance.
func (s *Steps) registerFunctions(c *conn) error {
	text := duckdb.CreateLogicalType(duckdb.TypeVarchar)
	defer duckdb.DestroyLogicalType(&text)
	for _, one := range s.stepFunctions() {
		id := functionIDs.Add(1)
		functions.Store(id, &one)
		f := duckdb.CreateScalarFunction()
		duckdb.ScalarFunctionSetName(f, one.name)
		for range one.args {
			duckdb.ScalarFunctionAddParameter(f, text)
		}
		duckdb.ScalarFunctionSetReturnType(f, text)
		which := (*int64)(C.malloc(C.size_t(unsafe.Sizeof(int64(0)))))
		*which = id
		duckdb.ScalarFunctionSetExtraInfo(f, unsafe.Pointer(which), C.free)
		duckdb.ScalarFunctionSetFunction(f, C.naruFunctionCall)
		state := duckdb.RegisterScalarFunction(c.c, f)
		duckdb.DestroyScalarFunction(&f)
		if state == duckdb.StateError {
			return fmt.Errorf("register function %s", one.name)
		}
	}
	return nil
}

//export naruFunctionCall
func naruFunctionCall(info, chunk, result unsafe.Pointer) {
	i, c, out := duckdb.FunctionInfo{Ptr: info}, duckdb.DataChunk{Ptr: chunk}, duckdb.Vector{Ptr: result}
	known, _ := functions.Load(*(*int64)(duckdb.ScalarFunctionGetExtraInfo(i)))
	f, ok := known.(*stepFunction)
	if !ok {
		duckdb.ScalarFunctionSetError(i, ownFault+"the function is not known")
		return
	}
	rows := int(duckdb.DataChunkGetSize(c))
	columns := make([]column, f.args)
	for n := range columns {
		columns[n].kind = duckdb.TypeVarchar
		columns[n].bind(duckdb.DataChunkGetVector(c, duckdb.IdxT(n)))
	}
	duckdb.VectorEnsureValidityWritable(out)
	valid := duckdb.VectorGetValidity(out)
	args := make([]string, f.args)
	for row := range rows {
		null := false
		for n := range columns {
			if columns[n].null(row) {
				null = true
				break
			}
			b := columns[n].bytes(row)
			args[n] = unsafe.String(unsafe.SliceData(b), len(b))
		}
		if !null {
			text, found, err := f.call(args)
			if err != nil {
				duckdb.ScalarFunctionSetError(i, err.Error())
				return
			}
			if found {
				duckdb.VectorAssignStringElement(out, duckdb.IdxT(row), text)
				continue
			}
		}
		duckdb.ValiditySetRowInvalid(valid, duckdb.IdxT(row))
	}
}
