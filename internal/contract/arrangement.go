package contract

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"naru/internal/lake"
)

// naru.partition and naru.sort: which rows of a table stand together in a file, and
// in which order. What a table cannot do is refused here, so that what a contract
// says is what happens.

// envelopeKinds are the columns that every table has, by the kinds of lake.ShapeColumn.
var envelopeKinds = map[string]string{"_id": "string", "_type": "string", "_source": "string", "_subject": "string", "_time": "timestamptz",
	"_received_at": "timestamptz", "_log": "string", "_partition": "int", "_offset": "long"}

// transform is one text of naru.partition.
var transform = regexp.MustCompile(`^(?:(year|month|day|hour)\((.+)\)|(bucket|truncate)\(([1-9][0-9]{0,8}), ?(.+)\)|([^()]+))$`)

// arrange reads what the two keys say. The fields must be complete.
func (d *decoder) arrange(c *Contract, root *node) {
	kinds := map[string]string{}
	root.columns(func(n *node, kind string) { kinds[n.path] = kind })
	if p := c.partitionAt; p != nil {
		if list := d.listed(p, c.Partition, lake.MaxPartitionFields); len(list) == 1 && list[0] == lake.None {
			c.partition = []lake.ShapePartition{{Transform: lake.None}}
		} else {
			for _, text := range list {
				d.partition(p, c, root, kinds, text)
			}
		}
	}
	if p := c.sortAt; p != nil {
		if list := d.listed(p, c.Sort, lake.MaxSortFields); len(list) == 1 && list[0] == lake.None {
			c.sort = []lake.ShapeSort{{Path: lake.None}}
		} else {
			for _, text := range list {
				d.sort(p, c, root, kinds, text)
			}
		}
	}
}

// listed checks what holds for both.
func (d *decoder) listed(p *block, texts []string, limit int) []string {
	switch {
	case len(texts) == 0:
		p.fail("value", "is empty: name a field, or write none")
	case len(texts) > limit:
		p.fail("value", "has %d fields: at most %d are possible", len(texts), limit)
		return nil
	case len(texts) > 1 && slices.Contains(texts, lake.None):
		p.fail("value", "none stands alone")
		return nil
	}
	return texts
}

// columnOf finds the kind of the column that a path of either key names.
func (d *decoder) columnOf(p *block, root *node, kinds map[string]string, path string) (n *node, kind string, ok bool) {
	if kind := envelopeKinds[path]; kind != "" {
		return nil, kind, true
	}
	n = d.named(p, path, root)
	if n == nil {
		return nil, "", false
	}
	if kind = kinds[path]; kind != "" {
		return n, kind, true
	}
	switch {
	case n.pii == PIIDrop:
		p.fail("value", "%s is dropped before it is stored: name another field", path)
	case strings.Contains(path, "[]"):
		p.fail("value", "%s is within an array, which is one column: name a field outside", path)
	case n.kind == objectKind:
		p.fail("value", "%s is an object, whose fields are the columns: name one of them", path)
	case n.kind == arrayKind:
		p.fail("value", "%s is an array: name a field that is none", path)
	default:
		p.fail("value", "%s has no logicalType, so data decide of which type its column is: give it one", path)
	}
	return n, "", false
}

func (d *decoder) partition(p *block, c *Contract, root *node, kinds map[string]string, text string) {
	m := transform.FindStringSubmatch(text)
	if m == nil {
		p.fail("value", "%q is no partition: write day(FIELD), hour, month or year of a timestamp, bucket(N, FIELD), a FIELD with an enum, or none", cut(text, 60))
		return
	}
	path := m[2] + m[5] + m[6]
	n, kind, ok := d.columnOf(p, root, kinds, path)
	if !ok {
		return
	}
	by := lake.ShapePartition{Path: path}
	switch {
	case slices.ContainsFunc(c.partition, func(x lake.ShapePartition) bool { return x.Path == path }):
		p.fail("value", "%s stands twice: once is enough", path)
	case m[3] == "truncate":
		p.fail("value", "%s is not supported: write bucket(16, %s)", cut(text, 60), path)
	case m[1] != "":
		by.Transform = m[1]
		if kind == "timestamptz" || kind == "date" && m[1] != "hour" {
			c.partition = append(c.partition, by)
			return
		}
		why := "takes a timestamp or a date"
		switch {
		case kind == "date":
			why = "takes a timestamp"
		case n != nil && n.kind.isTemporal():
			why += ", and this one is kept as text, as it has no offset or a format of its own (docs/contracts.md)"
		}
		p.fail("value", "%s: the column of %s is %s; %s %s; day(_time) is the time of the event itself", cut(text, 60), path, kind, m[1], why)
	case m[3] == "bucket":
		by.Transform = m[3]
		by.N, _ = strconv.Atoi(m[4]) // nine digits
		switch {
		case by.N > lake.MaxBuckets:
			p.fail("value", "%s: at most %d buckets are possible, and each commit makes a file for each of them", cut(text, 60), lake.MaxBuckets)
		case !slices.Contains([]string{"string", "long", "int", "timestamptz", "date"}, kind):
			p.fail("value", "%s: the column of %s is %s; bucket takes texts, whole numbers, dates and timestamps", cut(text, 60), path, kind)
		default:
			c.partition = append(c.partition, by)
		}
	default:
		d.identity(p, c, n, kind, path)
	}
}

// identity is a partition for each value: there must be few, whatever comes.
func (d *decoder) identity(p *block, c *Contract, n *node, kind, path string) {
	few := n != nil && n.enum != nil && len(n.enum.set) <= lake.MaxPartitionValues && (kind == "string" || kind == "long") && n.pii == PIINone
	switch {
	case kind == "timestamptz" || kind == "date":
		p.fail("value", "%s: a partition for each %s would be a file for each: write day(%s)", path, kind, path)
	case kind == "double" || strings.HasPrefix(kind, "list") || kind == "json":
		p.fail("value", "%s: its column is %s, which nothing can be partitioned by: name another field", path, kind)
	case n == nil:
		p.fail("value", "%s: a partition for each value needs few values: write bucket(16, %s)", path, path)
	case kind != "bool" && !few:
		p.fail("value", "%s: a partition for each value needs few values: give the field an enum of at most %d, or write bucket(16, %s)", path, lake.MaxPartitionValues, path)
	case n.personal:
		p.fail("value", "%s is personal, and its values would stand in names of files: write bucket(16, %s)", path, path)
	default:
		c.partition = append(c.partition, lake.ShapePartition{Transform: "identity", Path: path})
	}
}

func (d *decoder) sort(p *block, c *Contract, root *node, kinds map[string]string, text string) {
	path, order, _ := strings.Cut(text, " ")
	if order != "" && order != "asc" && order != "desc" {
		p.fail("value", "%q: write a field, then asc or desc", cut(text, 60))
	}
	_, kind, ok := d.columnOf(p, root, kinds, path)
	switch {
	case !ok:
	case strings.HasPrefix(kind, "list") || kind == "json":
		p.fail("value", "%s is an array: rows cannot be sorted by it", path)
	case slices.ContainsFunc(c.sort, func(x lake.ShapeSort) bool { return x.Path == path }):
		p.fail("value", "%s stands twice: once is enough", path)
	default:
		c.sort = append(c.sort, lake.ShapeSort{Path: path, Descending: order == "desc"})
	}
}
