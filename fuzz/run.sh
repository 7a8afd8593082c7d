#!/bin/sh
# Fuzzes each target for so many seconds, one after the other, and says what came of it.
# Usage: fuzz/run.sh SECONDS TARGET... Fails when something was found.
set -eu

seconds=$1
shift
cd "$(dirname "$0")/.."
found_any=0
for target in "$@"; do
	mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
	log=fuzz/artifacts/$target.log
	before=$(find "fuzz/artifacts/$target" -type f | wc -l)
	echo "$target: $seconds s, see $log"
	status=0
	cargo "+${NIGHTLY:-nightly}" fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
		-max_total_time="$seconds" -max_len=1000 -timeout=60 -dict=fuzz/http.dict \
		-print_final_stats=1 >"$log" 2>&1 || status=$?
	executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	after=$(find "fuzz/artifacts/$target" -type f | wc -l)
	if [ -z "$executions" ]; then
		tail -n 20 "$log"
		exit 1
	fi
	echo "$target: $executions executions, $((after - before)) findings"
	if [ "$status" -ne 0 ]; then
		found_any=1
		grep -E 'does not hold|panicked|artifacts/' "$log" | head -n 5
	fi
done
exit "$found_any"
