package visit

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestURLPart(t *testing.T) {
	for _, c := range []struct{ url, part, want string }{
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "scheme", "https"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "host", "example.com"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "port", "8443"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "path", "/a/b"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "query", "x=1&y=a+b%21"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "query.y", "a b!"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "query.z", "-"},
		{"HTTPS://user:pw@Example.COM:8443/a/b?x=1&y=a+b%21#top", "fragment", "top"},
		{"http://[2001:db8::1]:80/", "host", "2001:db8::1"},
		{"http://[2001:db8::1]:80/", "port", "80"},
		{"//cdn.example.com/x", "host", "cdn.example.com"},
		{"/only/a/path?q=%zz", "path", "/only/a/path"},
		{"/only/a/path?q=%zz", "query.q", "%zz"},
		{"/only/a/path?q=%zz", "host", "-"},
		{"mailto:a@b.c", "scheme", "mailto"},
		{"mailto:a@b.c", "path", "a@b.c"},
		{"http://a.b?empty=", "query.empty", ""},
		{"http://a.b?flag", "query.flag", ""},
		{"", "path", "-"},
		{"x", "nothing", "-"},
	} {
		got, ok := URLPart(c.url, c.part)
		if !ok {
			got = "-"
		}
		require.Equal(t, c.want, got, "%s of %s", c.part, c.url)
	}
}

func TestRefererPart(t *testing.T) {
	for _, c := range []struct{ referer, page, medium, source, term string }{
		{"https://www.google.co.kr/search?q=naru+river", "https://shop.example/", "search", "Google", "naru river"},
		{"https://search.naver.com/search.naver?query=%EB%82%98%EB%A3%A8", "", "search", "Naver", "나루"},
		{"https://duckduckgo.com/", "", "search", "DuckDuckGo", "-"},
		{"https://t.co/abc", "", "social", "Twitter", "-"},
		{"https://l.facebook.com/l.php?u=x", "", "social", "Facebook", "-"},
		{"https://mail.google.com/mail/u/0", "", "email", "Gmail", "-"},
		{"https://www.shop.example/cart", "https://shop.example/pay", "internal", "-", "-"},
		{"https://www.blog.example/post", "https://shop.example/pay", "referral", "blog.example", "-"},
		{"android-app://com.slack", "", "referral", "com.slack", "-"},
		{"", "", "-", "-", "-"},
		{"nonsense", "", "-", "-", "-"},
	} {
		for part, want := range map[string]string{"medium": c.medium, "source": c.source, "term": c.term} {
			got, ok := RefererPart(c.referer, c.page, part)
			if !ok {
				got = "-"
			}
			require.Equal(t, want, got, "%s of %s", part, c.referer)
		}
	}
}

func TestAgentPart(t *testing.T) {
	for _, c := range []struct{ agent, browser, version, os, osVersion, device string }{
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36", "Chrome", "126.0.0.0", "Windows", "10", "desktop"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87", "Edge", "126.0.2592.87", "Windows", "10", "desktop"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", "Safari", "17.5", "macOS", "10.15.7", "desktop"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Safari", "17.5", "iOS", "17.5.1", "mobile"},
		{"Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1", "Chrome", "126.0.6478.54", "iPadOS", "16.6", "tablet"},
		{"Mozilla/5.0 (Linux; Android 14; SM-S921N) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36", "Samsung Internet", "25.0", "Android", "14", "mobile"},
		{"Mozilla/5.0 (Linux; Android 13; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36", "Chrome", "126.0.0.0", "Android", "13", "tablet"},
		{"Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Firefox", "127.0", "Linux", "-", "desktop"},
		{"Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko", "Internet Explorer", "11.0", "Windows", "7", "desktop"},
		{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "-", "-", "-", "-", "bot"},
		{"curl/8.5.0", "curl", "8.5.0", "-", "-", "bot"},
		{"", "-", "-", "-", "-", "-"},
	} {
		for part, want := range map[string]string{"browser": c.browser, "browser_version": c.version, "os": c.os, "os_version": c.osVersion, "device": c.device} {
			got, ok := AgentPart(c.agent, part)
			if !ok {
				got = "-"
			}
			require.Equal(t, want, got, "%s of %s", part, c.agent)
		}
	}
}

func FuzzParts(f *testing.F) {
	f.Add("https://u@[::1]:1/p?a=%e4#f", "query.a")
	f.Fuzz(func(t *testing.T, text, part string) {
		if !utf8.ValidString(text) {
			return
		}
		for _, of := range []func(string, string) (string, bool){URLPart, AgentPart, func(a, b string) (string, bool) { return RefererPart(a, text, b) }} {
			got, ok := of(text, part)
			require.True(t, utf8.ValidString(got))
			require.True(t, ok || got == "")
		}
	})
}
