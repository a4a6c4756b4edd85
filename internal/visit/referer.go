package visit

import "strings"

// RefererParts are what is told of where a visitor came from.
var RefererParts = []string{"medium", "source", "term"}

// Media of a referer.
const (
	internal = "internal"
	search   = "search"
	social   = "social"
	email    = "email"
	referral = "referral"
)

// places are sites that send visitors, by a label of their host names: the label
// before the public suffix, as in google of www.google.co.kr, or a whole host.
var places = map[string]struct{ medium, source, term string }{
	"google": {search, "Google", "q"}, "bing": {search, "Bing", "q"}, "yahoo": {search, "Yahoo!", "p"}, "duckduckgo": {search, "DuckDuckGo", "q"},
	"yandex": {search, "Yandex", "text"}, "baidu": {search, "Baidu", "wd"}, "naver": {search, "Naver", "query"}, "daum": {search, "Daum", "q"},
	"ecosia": {search, "Ecosia", "q"}, "qwant": {search, "Qwant", "q"}, "startpage": {search, "Startpage", "query"}, "seznam": {search, "Seznam", "q"},
	"brave": {search, "Brave", "q"}, "sogou": {search, "Sogou", "query"}, "ask": {search, "Ask", "q"}, "aol": {search, "AOL", "q"},
	"kagi": {search, "Kagi", "q"}, "mojeek": {search, "Mojeek", "q"}, "perplexity": {search, "Perplexity", "q"}, "so": {search, "360 Search", "q"},

	"facebook": {social, "Facebook", ""}, "fb": {social, "Facebook", ""}, "instagram": {social, "Instagram", ""}, "twitter": {social, "Twitter", ""}, "t.co": {social, "Twitter", ""}, "x.com": {social, "Twitter", ""},
	"linkedin": {social, "LinkedIn", ""}, "lnkd": {social, "LinkedIn", ""}, "reddit": {social, "Reddit", ""}, "pinterest": {social, "Pinterest", ""}, "youtube": {social, "YouTube", ""}, "youtu.be": {social, "YouTube", ""},
	"tiktok": {social, "TikTok", ""}, "vk": {social, "VKontakte", ""}, "weibo": {social, "Weibo", ""}, "whatsapp": {social, "WhatsApp", ""}, "telegram": {social, "Telegram", ""}, "t.me": {social, "Telegram", ""},
	"quora": {social, "Quora", ""}, "tumblr": {social, "Tumblr", ""}, "xing": {social, "XING", ""}, "threads": {social, "Threads", ""}, "bsky": {social, "Bluesky", ""}, "mastodon": {social, "Mastodon", ""},
	"kakao": {social, "Kakao", ""}, "discord": {social, "Discord", ""}, "snapchat": {social, "Snapchat", ""}, "news.ycombinator.com": {social, "Hacker News", ""},

	"mail.google.com": {email, "Gmail", ""}, "outlook": {email, "Outlook", ""}, "mail.yahoo.com": {email, "Yahoo! Mail", ""}, "mail.naver.com": {email, "Naver Mail", ""}, "mail.yandex.ru": {email, "Yandex Mail", ""},
	"mail.proton.me": {email, "Proton Mail", ""}, "mail.daum.net": {email, "Daum Mail", ""},
}

// RefererPart tells of a referer: its medium (internal, search, social, email,
// referral), the source's name, the words that were searched for. page is the page
// that was visited; a referer on the same host is internal. Empty: unknown.
func RefererPart(referer, page, part string) (string, bool) {
	u := ParseURL(referer)
	if u.Host == "" {
		return "", false
	}
	medium, source, term := referral, strings.TrimPrefix(u.Host, "www."), ""
	if p, ok := places[u.Host]; ok {
		medium, source, term = p.medium, p.source, p.term
	} else if p, ok := places[siteOf(u.Host)]; ok {
		medium, source, term = p.medium, p.source, p.term
	}
	if page != "" && strings.TrimPrefix(ParseURL(page).Host, "www.") == strings.TrimPrefix(u.Host, "www.") {
		medium, source, term = internal, "", ""
	}
	switch part {
	case "medium":
		return medium, true
	case "source":
		return source, source != ""
	case "term":
		if term != "" {
			return u.Param(term)
		}
	}
	return "", false
}

// siteOf is the label before the public suffix of a host name, by its looks: behind
// it stand a top-level domain and, before a country's, a second level as in co.uk.
func siteOf(host string) string {
	labels := strings.Split(host, ".")
	n := len(labels) - 2
	if n > 0 && len(labels[n+1]) == 2 && secondLevels[labels[n]] {
		n--
	}
	if n < 0 {
		return host
	}
	return labels[n]
}

var secondLevels = map[string]bool{"co": true, "com": true, "net": true, "org": true, "ne": true, "or": true, "ac": true, "go": true, "gov": true, "edu": true}
