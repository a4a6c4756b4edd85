package relational

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A rewind deletes by row_key: two sinks with the same column of the same table would
// delete each other's rows.
func TestOwned(t *testing.T) {
	s := Settings{Table: "sales.orders", RowKey: "_key"}
	require.Equal(t, "row_key _key of table sales.orders in db:5432/shop", s.Owned("postgres://ana@db:5432/shop?sslmode=disable"))
	require.Equal(t, s.Owned("postgres://ana@db:5432/shop"), s.Owned("postgres://ben@db:5432/shop?application_name=x"))
	s.RowKey = ""
	require.Empty(t, s.Owned("postgres://db/shop"), "any number of sinks may append")
}
