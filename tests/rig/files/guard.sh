# Starts a server ($2 and on), its output going to the file $1, says its pid, and waits for its end.
#
# Standard input is a pipe whose other end only the test process holds. However that process ends, SIGKILL included, the
# pipe is closed then, and the server is killed with all that it started.
log=$1
shift
exec 3<&0
setsid "$@" </dev/null >>"$log" 2>&1 3<&- &
server=$!
(
  read -r _ <&3
  kill -s KILL -- "-$server"
  kill -s KILL "$server"
) >/dev/null 2>&1 &
guard=$!
exec 3<&-
echo "$server"
wait "$server"
status=$?
kill "$guard"
exit "$status"
