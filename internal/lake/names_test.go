package lake

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTableName(t *testing.T) {
	for _, c := range []struct{ typ, want string }{
		{"page_view", "page_view"},
		{"page", "page"},
		{"PageView", "page_view"},
		{"pageView", "page_view"},
		{"Page View", "page_view"},
		{"page-view", "page_view"},
		{"com.shop.order.paid", "com_shop_order_paid"},
		{"com.Shop.OrderPaid", "com_shop_order_paid"},
		{"HTTPRequest", "http_request"},
		{"parseHTTP", "parse_http"},
		{"ORDER", "order"},
		{"ORDER_PAID", "order_paid"},
		{"orderID", "order_id"},
		{"iOS", "i_os"},
		{"order2", "order2"},
		{"order2Paid", "order2_paid"},
		{"2fast", "2fast"},
		{"A", "a"},
		{"AB", "ab"},
		{"a__b", "a__b"},
		{"a b\tc\nd", "a_b_c_d"},
		{`a/../b"c;`, "a____b_c_"},
		{"주문", "주문"},
		{"Заказ", "заказ"},
		{"НовыйЗаказ", "новый_заказ"},
		{"注文.完了", "注文_完了"},
		{"café", "café"},
		{"cafe\u0301X", "cafe\u0301_x"},
		{"क्लिक", "क्लिक"},
		{"٣events", "٣events"},
		{"a\xffb", "a_b"},
		{"a\u0000b", "a_b"},
		{"🛒", "type__"},
		{"", "event"},
		{"event", "event"},
		{"rejected", "type_rejected"},
		{"Rejected", "type_rejected"},
		{"rejected_orders", "rejected_orders"},
		{"_other", "type__other"},
		{"_x", "type__x"},
		{".x", "type__x"},
		{"$identify", "type__identify"},
		{strings.Repeat("a", 128), strings.Repeat("a", 128)},
		{strings.Repeat("a", 129), strings.Repeat("a", 128)},
		{strings.Repeat("é", 65), strings.Repeat("é", 64)},
		{"_" + strings.Repeat("주", 60), "type__" + strings.Repeat("주", 40)},
	} {
		if got := TableName(c.typ); got != c.want {
			t.Errorf("TableName(%q) = %q, want %q", c.typ, got, c.want)
		}
	}
}

func FuzzTableName(f *testing.F) {
	for _, s := range []string{"PageView", "_x", "a\xff", "주문", strings.Repeat("É", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typ string) {
		name := TableName(typ)
		switch {
		case name == "", len(name) > MaxName, !utf8.ValidString(name), name[0] == '_', name == "rejected",
			strings.ContainsAny(name, " ./\\\"'`\x00\n"):
			t.Errorf("TableName(%q) = %q", typ, name)
		case TableName(name) != name:
			t.Errorf("TableName(%q) = %q, and of that %q", typ, name, TableName(name))
		}
	})
}
