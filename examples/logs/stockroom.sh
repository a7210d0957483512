#!/bin/sh
# stockroom.sh SOCKET REPORT: a shell script that logs with logger(1), until SIGTERM.
socket=$1 report=$2 lines=0 stopping=
trap 'stopping=1' TERM INT
while [ -z "$stopping" ]; do
    lines=$((lines + 1))
    if [ $((lines % 10)) -eq 0 ]; then
        logger --socket "$socket" --tag stockroom --id=$$ --priority local0.warning "#$lines shelf $((lines % 7)) is nearly empty"
    else
        logger --socket "$socket" --tag stockroom --id=$$ --priority local0.info "#$lines shelf $((lines % 7)) counted"
    fi
    sleep 0.2
done
echo "{\"lines\": $lines, \"dropped\": 0}" >"$report"
