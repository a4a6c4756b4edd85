package contract

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// people reads whom to ask and what was promised.
func (d *decoder) people(b *block, c *Contract) {
	quiet := &decoder{} // formal complains
	var members []*yaml.Node
	if n := b.get("team"); n != nil {
		switch n.Kind {
		case yaml.SequenceNode: // deprecated and valid
			members = n.Content
		case yaml.MappingNode:
			team := quiet.block(n, "team", nil)
			c.Team = team.quiet("name")
			if m := team.get("members"); m != nil && m.Kind == yaml.SequenceNode {
				members = m.Content
			}
		}
	}
	for _, item := range members {
		if m := quiet.block(item, "", nil); m != nil {
			c.Members = append(c.Members, Member{Username: m.quiet("username"), Name: m.quiet("name"), Role: m.quiet("role"), Left: m.quiet("dateOut")})
		}
	}
	c.Owner = owner(c.Members, "owner", c.Team)
	if n := b.get("support"); n != nil {
		for _, item := range n.Content {
			if s := quiet.block(item, "", nil); s != nil {
				c.Support = append(c.Support, Channel{Channel: s.quiet("channel"), Tool: s.quiet("tool"), Scope: s.quiet("scope"), URL: s.quiet("url")})
			}
		}
	}
	if n := b.get("slaProperties"); n != nil {
		for _, item := range n.Content {
			if s := quiet.block(item, "", nil); s != nil {
				c.SLA = append(c.SLA, SLA{Property: s.quiet("property"), Value: s.quiet("value"), Unit: s.quiet("unit"), Element: s.quiet("element")})
			}
		}
	}
	in := &c.Ingest
	in.SourceOwner, in.IngestionOwner = role(c.Members, "sourceOwner"), role(c.Members, "ingestionOwner")
	if n := b.get("servers"); n != nil {
		for _, item := range n.Content {
			if s := quiet.block(item, "", nil); s != nil && s.quiet("server") == "source" {
				in.SourceHost, in.SourceDatabase = s.quiet("host"), s.quiet("database")
			}
		}
	}
	for _, s := range c.SLA {
		if strings.EqualFold(s.Property, "frequency") {
			in.FrequencyMin = minutes(s.Value, s.Unit)
		}
	}
}

// minutes reads a duration of the SLA; 0 when it cannot be read.
func minutes(value, unit string) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > 1e9 {
		return 0
	}
	switch strings.ToLower(unit) {
	case "m", "min", "minute", "minutes":
		return n
	case "h", "hr", "hour", "hours":
		return n * 60
	case "d", "day", "days":
		return n * 24 * 60
	}
	return 0
}

// owner is the first member still there whose role names one, else the team,
// else the first member.
func owner(members []Member, word, team string) string {
	first := ""
	for _, m := range members {
		if m.Left != "" {
			continue
		}
		if r := strings.ToLower(m.Role); strings.Contains(r, word) && r != "sourceowner" && r != "ingestionowner" {
			return m.called()
		}
		if first == "" {
			first = m.called()
		}
	}
	if team != "" {
		return team
	}
	return first
}

func role(members []Member, role string) string {
	for _, m := range members {
		if m.Left == "" && strings.EqualFold(m.Role, role) {
			return m.called()
		}
	}
	return ""
}

func (m Member) called() string {
	if m.Name == "" || m.Name == m.Username {
		return m.Username
	}
	return m.Name + " (" + m.Username + ")"
}

// ingestion reads the custom properties that say where the data comes from; they
// go before what servers, team and slaProperties say.
func (d *decoder) ingestion(custom map[string]*block, c *Contract) {
	in := &c.Ingest
	for name, into := range map[string]*string{
		"ingestionJobId": &in.JobID, "sourceHost": &in.SourceHost, "sourceDatabase": &in.SourceDatabase,
		"sourceOwner": &in.SourceOwner, "ingestionOwner": &in.IngestionOwner,
	} {
		if p := custom[name]; p != nil {
			*into = p.quiet("value")
		}
	}
	if p := custom["ingestionType"]; p != nil {
		in.Type = word(p, "value", "", "full", "incremental", "cdc")
	}
	if p := custom["ingestionFrequencyMinutes"]; p != nil {
		if n, ok := p.whole("value"); ok {
			in.FrequencyMin = n
		}
	}
}
