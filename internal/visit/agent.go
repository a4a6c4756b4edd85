package visit

import "strings"

// AgentParts are what is told of a user agent.
var AgentParts = []string{"browser", "browser_version", "os", "os_version", "device"}

// mark is a word of a user agent that tells who it is; the first that stands in it
// counts. The version follows version, or the word itself and a slash.
type mark struct{ word, name, version string }

var browsers = []mark{
	{"Edg/", "Edge", ""}, {"EdgA/", "Edge", ""}, {"EdgiOS/", "Edge", ""}, {"Edge/", "Edge", ""},
	{"OPR/", "Opera", ""}, {"Opera/", "Opera", "Version/"}, {"SamsungBrowser/", "Samsung Internet", ""}, {"Whale/", "Whale", ""}, {"YaBrowser/", "Yandex Browser", ""}, {"Vivaldi/", "Vivaldi", ""},
	{"UCBrowser/", "UC Browser", ""}, {"MiuiBrowser/", "Miui Browser", ""}, {"DuckDuckGo/", "DuckDuckGo", ""}, {"KAKAOTALK", "KakaoTalk", "KAKAOTALK "}, {"FBAV/", "Facebook", ""}, {"Instagram ", "Instagram", "Instagram "},
	{"FxiOS/", "Firefox", ""}, {"Firefox/", "Firefox", ""}, {"CriOS/", "Chrome", ""}, {"HeadlessChrome/", "Chrome", ""}, {"Chromium/", "Chromium", ""}, {"Chrome/", "Chrome", ""},
	{"Trident/", "Internet Explorer", "rv:"}, {"MSIE ", "Internet Explorer", "MSIE "}, {"Android ", "Android Browser", "Version/"}, {"Safari/", "Safari", "Version/"},
	{"okhttp/", "okhttp", ""}, {"curl/", "curl", ""}, {"Wget/", "Wget", ""}, {"python-requests/", "python-requests", ""}, {"Go-http-client/", "Go-http-client", ""}, {"Java/", "Java", ""}, {"PostmanRuntime/", "Postman", ""},
}

var systems = []mark{
	{"Windows Phone", "Windows Phone", "Windows Phone "}, {"Windows NT ", "Windows", "Windows NT "}, {"iPhone OS ", "iOS", "iPhone OS "}, {"iPad; ", "iPadOS", "CPU OS "}, {"iPod", "iOS", "iPhone OS "},
	{"Android", "Android", "Android "}, {"HarmonyOS", "HarmonyOS", ""}, {"Mac OS X", "macOS", "Mac OS X "}, {"CrOS ", "ChromeOS", ""}, {"Tizen", "Tizen", "Tizen "}, {"Web0S", "webOS", ""}, {"FreeBSD", "FreeBSD", ""}, {"Linux", "Linux", ""},
}

// windows are the names of the versions of Windows NT.
var windows = map[string]string{"10.0": "10", "6.3": "8.1", "6.2": "8", "6.1": "7", "6.0": "Vista", "5.1": "XP"}

// robots are words of programs that fetch pages by themselves, in lower case.
var robots = []string{"bot", "crawl", "spider", "slurp", "headless", "lighthouse", "facebookexternalhit", "preview", "monitor", "curl/", "wget/", "python-", "go-http-client", "java/", "okhttp", "postman", "scrapy", "axios", "libwww", "feedfetcher"}

// AgentPart tells of a user agent: browser, browser_version, os, os_version, or
// device (desktop, mobile, tablet, tv, bot).
func AgentPart(agent, part string) (string, bool) {
	found := func(s string) (string, bool) { return s, s != "" }
	switch part {
	case "browser":
		name, _ := identify(agent, browsers)
		return found(name)
	case "browser_version":
		_, version := identify(agent, browsers)
		return found(version)
	case "os":
		name, _ := identify(agent, systems)
		return found(name)
	case "os_version":
		name, version := identify(agent, systems)
		if known, ok := windows[version]; ok && name == "Windows" {
			version = known
		}
		return found(version)
	case "device":
		return found(device(agent))
	}
	return "", false
}

func identify(agent string, marks []mark) (name, version string) {
	for _, m := range marks {
		at := strings.Index(agent, m.word)
		if at < 0 {
			continue
		}
		rest := ""
		switch {
		case m.version != "":
			if i := strings.Index(agent, m.version); i >= 0 {
				rest = agent[i+len(m.version):]
			}
		case strings.HasSuffix(m.word, "/"):
			rest = agent[at+len(m.word):]
		}
		return m.name, number(rest)
	}
	return "", ""
}

// number is the version that a text begins with, dots between its parts.
func number(s string) string {
	end := 0
	for end < len(s) && end < 32 && (s[end] >= '0' && s[end] <= '9' || (s[end] == '.' || s[end] == '_') && end > 0) {
		end++
	}
	return strings.ReplaceAll(strings.TrimRight(s[:end], "._"), "_", ".")
}

func device(agent string) string {
	if strings.TrimSpace(agent) == "" {
		return ""
	}
	low := strings.ToLower(agent)
	for _, r := range robots {
		if strings.Contains(low, r) {
			return "bot"
		}
	}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(agent, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("SmartTV", "SMART-TV", "AppleTV", "Apple TV", "GoogleTV", "HbbTV", "BRAVIA", "Web0S", "AFTT", "Roku"):
		return "tv"
	case has("iPad", "Tablet", "Kindle", "Silk/") || has("Android") && !has("Mobile"):
		return "tablet"
	case has("Mobi", "iPhone", "iPod", "Android", "Windows Phone"):
		return "mobile"
	case has("Windows", "Macintosh", "X11", "CrOS", "Linux"):
		return "desktop"
	}
	return ""
}
