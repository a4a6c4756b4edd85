package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// file is one Go source file of the module.
type file struct {
	path   string // from the root
	pkg    string // its folder
	test   bool
	lines  int
	syntax *ast.File
}

// sources parses the module, without tools/, which is a module of its own.
func sources(t *testing.T) (files []file) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "bin" || name == "data") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(set, p, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(name, "_test.go"),
			lines: bytes.Count(text, []byte{'\n'}), syntax: syntax})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("only %d files found", len(files))
	}
	return files
}

func (f *file) imports() (paths []string) {
	for _, s := range f.syntax.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			panic(err) // it was parsed
		}
		paths = append(paths, p)
	}
	return paths
}

// TestRings: imports point inwards. Tests may reach further: that is how a
// package is tried together with others.
func TestRings(t *testing.T) {
	used, found := map[[2]string]bool{}, map[string]bool{}
	for _, f := range sources(t) {
		ring, known := rings[f.pkg]
		if found[f.pkg] = true; !known {
			t.Errorf("%s: its package is in no ring: add it to rules.go", f.path)
			continue
		}
		if f.test {
			continue
		}
		for _, imp := range f.imports() {
			to, ours := strings.CutPrefix(imp, "naru/")
			if !ours {
				continue
			}
			edge := [2]string{f.pkg, to}
			if _, ok := sideways[edge]; ok {
				used[edge] = true
				continue
			}
			if rings[to] >= ring {
				t.Errorf("%s (ring %d) imports %s (ring %d): take it as an interface of a lower ring, or say in rules.go why not", f.path, ring, to, rings[to])
			}
		}
	}
	for edge, why := range sideways {
		if !used[edge] {
			t.Errorf("rules.go allows %s to import %s (%s), which it does not", edge[0], edge[1], why)
		}
		if rings[edge[0]] != rings[edge[1]] {
			t.Errorf("rules.go allows %s to import %s, which are not in one ring", edge[0], edge[1])
		}
	}
	for pkg := range rings {
		if !found[pkg] {
			t.Errorf("rules.go has %s, which does not exist", pkg)
		}
	}
}

// TestForeignLibraries: one library, one importing package.
func TestForeignLibraries(t *testing.T) {
	used := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, imp := range f.imports() {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
				continue // naru's, or the standard library
			}
			lib := ""
			for l := range foreign {
				if imp == l || strings.HasPrefix(imp, l+"/") {
					lib = l
				}
			}
			if lib == "" {
				t.Errorf("%s imports %s: a new library needs its place in rules.go", f.path, imp)
				continue
			}
			if used[lib+" "+f.pkg] = true; !slices.Contains(foreign[lib].importers, f.pkg) {
				t.Errorf("%s imports %s: only %s may", f.path, imp, strings.Join(foreign[lib].importers, ", "))
			}
		}
	}
	for lib, rule := range foreign {
		for _, pkg := range rule.importers {
			if !used[lib+" "+pkg] {
				t.Errorf("rules.go allows %s to import %s, which it does not", pkg, lib)
			}
		}
		if (len(rule.importers) > 1) != (rule.why != "") {
			t.Errorf("%s: %d importers and the reason %q", lib, len(rule.importers), rule.why)
		}
	}
}

func TestNamesAndSizes(t *testing.T) {
	for _, f := range sources(t) {
		if slices.Contains(badNames, path.Base(f.pkg)) || slices.Contains(badNames, f.syntax.Name.Name) {
			t.Errorf("%s: the name of its package says nothing of what is in it", f.path)
		}
		if f.path == "cmd/naru/main.go" && f.lines >= longestMain {
			t.Errorf("%s has %d lines: it is to have less than %d", f.path, f.lines, longestMain)
		}
		if !f.test && f.lines > longestFile {
			t.Errorf("%s has %d lines: split it by its nouns below %d", f.path, f.lines, longestFile)
		}
	}
}

func TestNothingStartsByItself(t *testing.T) {
	used := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: write the list out where it is used", f.path)
			}
		}
		for i, s := range f.syntax.Imports {
			if s.Name == nil || s.Name.Name != "_" {
				continue
			}
			imp := f.imports()[i]
			if used[imp] = true; blankImports[imp] == "" {
				t.Errorf("%s imports %s for its side effects: call what you need", f.path, imp)
			}
		}
	}
	for imp := range blankImports {
		if !used[imp] {
			t.Errorf("rules.go allows the blank import of %s, which is not needed", imp)
		}
	}
}

func TestFilesGoThroughVFS(t *testing.T) {
	used := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, call := range osCalls(f.syntax) {
			if !slices.Contains(writing, call) {
				continue
			}
			if used[f.pkg] = true; writers[f.pkg] == "" {
				t.Errorf("%s calls os.%s: use vfs, so that tests can make it fail", f.path, call)
			}
		}
	}
	for pkg, why := range writers {
		if !used[pkg] {
			t.Errorf("rules.go lets %s write without vfs (%s), which it does not", pkg, why)
		}
	}
}

// osCalls are the names that a file uses from package os.
func osCalls(syntax *ast.File) (names []string) {
	ast.Inspect(syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" {
				names = append(names, s.Sel.Name)
			}
		}
		return true
	})
	return names
}

// TestTheTestsCanFail feeds the finders a file that breaks the rules.
// What a page names is there: metrics and headers of records by whole words.
func TestNamesOfTheDocs(t *testing.T) {
	known := map[string]bool{}
	quoted := regexp.MustCompile(`"(naru_[a-z_]+)"`)
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
			known[m[1]] = true
		}
	}
	pages := []string{filepath.Join(root, "README.md"), filepath.Join(root, "CHANGELOG.md")}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	named := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bnaru_[a-z_]+`).FindAllString(string(text), -1) {
			base := name
			for _, suffix := range []string{"_sum", "_count", "_bucket"} { // of a histogram
				base = strings.TrimSuffix(base, suffix)
			}
			if named++; !known[name] && !known[base] {
				t.Errorf("%s names %s, which is nowhere in the code", filepath.Base(page), name)
			}
		}
	}
	if named < 60 {
		t.Errorf("only %d names found", named)
	}
}

func TestTheTestsCanFail(t *testing.T) {
	syntax, err := parser.ParseFile(token.NewFileSet(), "x.go", "package util\nimport _ \"os\"\nimport \"naru/internal/app\"\nfunc init() { os.Create(\"x\") }", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	f := file{path: "internal/event/x.go", pkg: "internal/event", syntax: syntax}
	if got := fmt.Sprint(f.imports(), osCalls(syntax)); got != "[os naru/internal/app] [Create]" {
		t.Errorf("found %s", got)
	}
}
