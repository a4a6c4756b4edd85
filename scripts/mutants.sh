#!/usr/bin/env bash
# Applies each patch of testdata/mutants/ to a copy of the tree, one at a time:
# each takes a protection away, and the test that it names must fail. A mutant
# that lives means that nobody would notice the protection missing.
#
#   scripts/mutants.sh [NAME...]     all patches, or those named
#
# A patch begins with a line that says what it breaks and a line
#   Test: PACKAGE TEST [FLAG...]
# and, where that test writes to real servers (test-world/engines), with a line
#   Needs: ENGINE...
set -uo pipefail
cd "$(dirname "$0")/.."

here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/naru"
[ -d ../shared ] && ln -s "$(cd ../shared && pwd)" "$work/shared"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read 2>/dev/null | tar -x -C "$work/naru"
cd "$work/naru" || exit 2

names=("$@")
if [ ${#names[@]} = 0 ]; then
	for p in "$here"/testdata/mutants/*.patch; do
		names+=("$(basename "$p" .patch)")
	done
fi

killed=0
alive=()
for name in "${names[@]}"; do
	patch_file=$here/testdata/mutants/$name.patch
	test_line=$(sed -n 's/^Test: //p' "$patch_file")
	read -r package test flags <<<"$test_line"
	engines=$(sed -n 's/^Needs: //p' "$patch_file")
	printf '%-32s %s\n' "$name" "$(head -1 "$patch_file")"
	if [ -z "$test" ]; then
		echo "    no line 'Test: PACKAGE TEST' in the patch"
		alive+=("$name")
		continue
	fi
	if ! git apply "$patch_file"; then
		echo "    the patch does not apply any more: make it anew"
		alive+=("$name")
		continue
	fi
	# shellcheck disable=SC2086 # flags are words
	out=$(${engines:+test-world/engines/with $engines --} go test -count=1 -timeout 4m -run "^${test}\$" "$package" $flags 2>&1)
	status=$?
	if grep -q 'no tests to run' <<<"$out"; then
		echo "    there is no $test in $package"
		alive+=("$name")
	elif [ $status = 0 ]; then
		echo "    ALIVE: $test of $package passes without the protection"
		alive+=("$name")
	elif grep -qE "^\s*--- FAIL: $test|^panic: |^fatal error: " <<<"$out"; then
		killed=$((killed + 1))
		echo "    killed by $test: $(grep -E '_test\.go:[0-9]+:|^panic: |^fatal error: ' <<<"$out" | head -1 | sed 's/^ *//' | cut -c1-150)"
	else
		echo "    the mutant does not build or the test did not run:"
		tail -15 <<<"$out" | sed 's/^/    /'
		alive+=("$name")
	fi
	if ! git apply -R "$patch_file"; then
		echo "    the patch could not be taken back"
		exit 2
	fi
done

echo
echo "$killed of ${#names[@]} mutants killed"
if [ ${#alive[@]} -gt 0 ]; then
	echo "not killed: ${alive[*]}"
	exit 1
fi
