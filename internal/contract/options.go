package contract

import (
	"fmt"
	"strconv"
	"strings"
)

// optionKeys are the logicalTypeOptions of each type.
var optionKeys = map[kind][]string{
	stringKind:    {"minLength", "maxLength", "pattern", "format"},
	dateKind:      {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
	timestampKind: {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "timezone", "defaultTimezone"},
	timeKind:      {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "timezone", "defaultTimezone"},
	integerKind:   {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
	numberKind:    {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
	objectKind:    {"minProperties", "maxProperties", "required"},
	arrayKind:     {"minItems", "maxItems", "uniqueItems"},
	booleanKind:   {},
}

// options reads logicalTypeOptions.
func (r *reader) options(b *block, n *node, f *Field) {
	v := b.get("logicalTypeOptions")
	if n.kind.isTemporal() {
		n.layout = map[kind]*layout{dateKind: rfcDate, timestampKind: rfcTimestamp, timeKind: rfcTime}[n.kind]
	}
	if v == nil || n.kind == anyKind {
		return
	}
	o := r.block(v, b.at("logicalTypeOptions"), optionKeys[n.kind])
	if o == nil {
		return
	}
	size := func(key string, into *int) {
		if s, ok := o.whole(key); ok {
			*into = s
			n.setLine(key, o.lines[key])
			f.Rules = append(f.Rules, Rule{Name: key, Value: strconv.Itoa(s)})
		}
	}
	order := func(low, high string, a, z int) {
		if a >= 0 && z >= 0 && a > z {
			o.fail(high, "%d is less than %s %d, so no value could be right", z, low, a)
		}
	}
	switch n.kind {
	case stringKind:
		size("minLength", &n.minLen)
		size("maxLength", &n.maxLen)
		order("minLength", "maxLength", n.minLen, n.maxLen)
		if o.value["pattern"] != nil {
			r.pattern(o, n, f)
		}
		r.stringFormat(o, n, f)
	case arrayKind:
		size("minItems", &n.minItems)
		size("maxItems", &n.maxItems)
		order("minItems", "maxItems", n.minItems, n.maxItems)
		if n.unique = o.bool("uniqueItems"); n.unique {
			n.setLine(ruleUniqueItems, o.lines[ruleUniqueItems])
			f.Rules = append(f.Rules, Rule{Name: ruleUniqueItems, Value: "true"})
		}
	case objectKind:
		size("minProperties", &n.minProps)
		size("maxProperties", &n.maxProps)
		order("minProperties", "maxProperties", n.minProps, n.maxProps)
		o.texts("required")
	case integerKind, numberKind:
		r.numberRules(o, n, f)
	case dateKind, timestampKind, timeKind:
		r.timeRules(o, n, f)
	}
}

func (r *reader) pattern(b *block, n *node, f *Field) {
	text := b.text("pattern")
	re, err := compilePattern(text)
	switch {
	case err != nil:
		b.fail("pattern", "%v", err)
	case n.pattern != nil:
		b.fail("pattern", "the property has a pattern already: keep one")
	case n.kind != stringKind:
		b.fail("pattern", "is for strings: set logicalType: string, not %s", n.kind)
	default:
		n.pattern, n.patternText = re, text
		n.setLine(rulePattern, b.lines["pattern"])
		f.Rules = append(f.Rules, Rule{Name: rulePattern, Value: text})
	}
}

func (r *reader) stringFormat(o *block, n *node, f *Field) {
	name := o.text("format")
	if name == "" {
		return
	}
	check, known := formats[name]
	if !known {
		r.note(o.lines["format"], o.at("format"), "%q is not checked: %s are%s", cut(name, 60), strings.Join(formatNames(), ", "), didYouMean(name, formatNames()))
	}
	n.format, n.formatName = check, name
	n.setLine(ruleFormat, o.lines["format"])
	f.Rules = append(f.Rules, Rule{Name: ruleFormat, Value: name})
}

// numberFormats are the ranges of ODCS's formats, as Rust has them.
var numberFormats = map[string][2]string{
	"i8": {"-128", "127"}, "i16": {"-32768", "32767"}, "i32": {"-2147483648", "2147483647"},
	"i64":  {"-9223372036854775808", "9223372036854775807"},
	"i128": {"-170141183460469231731687303715884105728", "170141183460469231731687303715884105727"},
	"u8":   {"0", "255"}, "u16": {"0", "65535"}, "u32": {"0", "4294967295"}, "u64": {"0", "18446744073709551615"},
	"u128": {"0", "340282366920938463463374607431768211455"},
	"f32":  {"-3.40282346638528859811704183484516925440e38", "3.40282346638528859811704183484516925440e38"},
	"f64":  {"-1.79769313486231570814527423731704356798070e308", "1.79769313486231570814527423731704356798070e308"},
}

func (r *reader) numberRules(o *block, n *node, f *Field) {
	if name := o.text("format"); name != "" {
		words := []string{"f32", "f64"}
		if n.kind == integerKind {
			words = []string{"i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64", "u128"}
		}
		if !contains(words, name) {
			o.fail("format", "%q is none of %s%s", cut(name, 60), strings.Join(words, ", "), didYouMean(name, words))
		} else {
			n.low, n.high, n.formatName = newBound(numberFormats[name][0]), newBound(numberFormats[name][1]), name
			n.setLine(ruleFormat, o.lines["format"])
			f.Rules = append(f.Rules, Rule{Name: ruleFormat, Value: name})
		}
	}
	for _, rule := range []struct {
		key  string
		into **bound
	}{{ruleMinimum, &n.min}, {ruleMaximum, &n.max}, {ruleExclusiveMinimum, &n.aboveMin}, {ruleExclusiveMaximum, &n.belowMax}, {ruleMultipleOf, &n.multipleOf}} {
		v := o.get(rule.key)
		if v == nil {
			continue
		}
		text, ok := number(v)
		if !ok {
			if v.Style != 0 {
				o.fail(rule.key, "wants a number, not a text: take the quotes away")
			} else {
				o.fail(rule.key, "wants a number of at most %d digits and an exponent below %d, not %s", maxDigits, maxExponent, kindName(v))
			}
			continue
		}
		b := newBound(text)
		if rule.key == ruleMultipleOf && (len(b.digits) == 0 || b.negative || len(b.digits) > 18) {
			o.fail(rule.key, "wants a number above 0 of at most 18 digits, not %s", text)
			continue
		}
		*rule.into = b
		n.setLine(rule.key, o.lines[rule.key])
		f.Rules = append(f.Rules, Rule{Name: rule.key, Value: text})
	}
	for _, low := range []*bound{n.min, n.aboveMin} {
		for _, high := range []*bound{n.max, n.belowMax} {
			if low == nil || high == nil {
				continue
			}
			if c := low.compare(&high.decimal); c > 0 || c == 0 && (low == n.aboveMin || high == n.belowMax) {
				r.fail(o.line, o.path, "no number is between %s and %s: the upper bound is too low", low.text, high.text)
			}
		}
	}
}

func (r *reader) timeRules(o *block, n *node, f *Field) {
	zoned := o.get("timezone")
	zone := o.text("defaultTimezone")
	if zone != "" && n.kind == timestampKind && zoned == nil {
		n.layout = rfcEither
	}
	if zoned != nil {
		with := o.bool("timezone")
		switch {
		case n.kind == timestampKind && !with:
			n.layout = rfcLocal
		case n.kind == timeKind && with:
			n.layout = mustTime("a time of day with its offset, as in 09:00:00.5+09:00", part{what: 'z'})
		case n.kind == timeKind:
			n.layout = mustTime("a time of day without an offset, as in 09:00:00.5")
		}
	}
	if pattern := o.text("format"); pattern != "" {
		l, err := newLayout(pattern)
		if err != nil {
			o.fail("format", "%v", err)
		} else {
			n.layout = l
			n.setLine(ruleFormat, o.lines["format"])
			f.Rules = append(f.Rules, Rule{Name: ruleFormat, Value: pattern})
		}
	}
	n.utc = isUTC(zone)
	edgeOf := func(key string, exclusive bool, into **edge) {
		text := o.text(key)
		if text == "" {
			return
		}
		c, ok := readTime(n.layout, []byte(text))
		if !ok {
			o.fail(key, "%q is not %s", cut(text, 60), n.layout.name)
			return
		}
		if *into != nil {
			o.fail(key, "there is an exclusive bound too: keep one of the two")
			return
		}
		*into = &edge{moment: moment{c.seconds(), string(c.fraction)}, text: text, exclusive: exclusive}
		n.setLine(key, o.lines[key])
		f.Rules = append(f.Rules, Rule{Name: key, Value: text})
	}
	edgeOf(ruleExclusiveMinimum, true, &n.from)
	edgeOf(ruleMinimum, false, &n.from)
	edgeOf(ruleExclusiveMaximum, true, &n.to)
	edgeOf(ruleMaximum, false, &n.to)
	if (n.from != nil || n.to != nil) && zone != "" && !n.layout.zoned() && !isUTC(zone) {
		o.fail("defaultTimezone", "%q is not read: to compare a time without an offset only UTC is; let the sender write the offset", cut(zone, 60))
	}
	if n.from != nil && n.to != nil {
		c := clock{year: 1970, month: 1, day: 1, fraction: []byte(n.from.fraction)}
		c.second = 0
		m := moment{n.to.seconds - n.from.seconds, n.to.fraction}
		if d := c.compare(m); d > 0 || d == 0 && (n.from.exclusive || n.to.exclusive) {
			r.fail(o.line, o.path, "no time is between %s and %s: the upper bound is too early", n.from.text, n.to.text)
		}
	}
}

// isUTC tells whether a zone is that of UTC by its name.
func isUTC(zone string) bool { return contains([]string{"UTC", "Etc/UTC", "Z", "GMT"}, zone) }

func mustTime(name string, end ...part) *layout {
	return &layout{name: name, parts: append(append(append([]part{}, mustLayout("", "HH:mm:ss").parts...), part{what: 'f'}), end...)}
}

func (r Rule) String() string {
	if r.Name == ruleEnum {
		return fmt.Sprintf("one of %s", strings.Join(r.Enum, ", "))
	}
	return r.Name + " " + r.Value
}
