package duck

import (
	"context"
	"errors"
	"fmt"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/query"
)

// parser turns statements into trees. It runs in an instance of its own that
// holds no data and executes nothing but json_serialize_sql.
type parser struct {
	db *database
	// turns bounds how many trees exist at once: one may be a hundred times as
	// large as its text.
	turns chan struct{}
}

// parsersAtOnce trees of at most query.MaxTree each are judged at the same time.
const parsersAtOnce = 2

func openParser() (*parser, error) {
	db, err := openDatabase(
		option{"threads", "1"},
		option{"memory_limit", "256MiB"},
		option{"temp_directory", ""},
		option{"autoinstall_known_extensions", "false"},
		option{"autoload_known_extensions", "false"},
		option{"enable_external_access", "false"},
		option{"lock_configuration", "true"},
	)
	if err != nil {
		return nil, err
	}
	return &parser{db: db, turns: make(chan struct{}, parsersAtOnce)}, nil
}

func (p *parser) close() { p.db.close() }

// judge hands the tree of sql to see.
func (p *parser) judge(ctx context.Context, sql string, see func(tree []byte) error) error {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tree, err := p.tree(ctx, sql)
	if err != nil {
		return err
	}
	return see(tree)
}

func (p *parser) tree(ctx context.Context, sql string) ([]byte, error) {
	c, err := p.db.connect()
	if err != nil {
		return nil, err
	}
	defer c.close()
	defer c.interruptOn(ctx)()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}

	var stmt duckdb.PreparedStatement
	defer duckdb.DestroyPrepare(&stmt)
	if duckdb.Prepare(c.c, "SELECT CAST(json_serialize_sql(CAST($1 AS VARCHAR)) AS VARCHAR)", &stmt) == duckdb.StateError {
		return nil, fmt.Errorf("parse statement: %s", duckdb.PrepareError(stmt))
	}
	if duckdb.BindVarcharLength(stmt, 1, sql, duckdb.IdxT(len(sql))) == duckdb.StateError {
		return nil, errors.New("parse statement: its text was not taken")
	}
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.ExecutePrepared(stmt, &res) == duckdb.StateError {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		text := duckdb.ResultError(&res)
		if strings.HasPrefix(text, "Out of Memory") {
			return nil, &query.Error{Class: query.ErrRefused, Text: "the statement is too complex to be read; put long lists of values into a table"}
		}
		return nil, fmt.Errorf("parse statement: %s", text)
	}
	chunk := duckdb.FetchChunk(res)
	if chunk.Ptr == nil {
		return nil, errors.New("parse statement: no answer")
	}
	defer duckdb.DestroyDataChunk(&chunk)
	col := column{kind: duckdb.TypeVarchar}
	col.bind(duckdb.DataChunkGetVector(chunk, 0))
	if duckdb.DataChunkGetSize(chunk) != 1 || col.null(0) {
		return nil, errors.New("parse statement: no answer")
	}
	return append([]byte(nil), col.bytes(0)...), nil
}
