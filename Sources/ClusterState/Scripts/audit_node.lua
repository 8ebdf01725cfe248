#!lua flags=allow-oom
-- Notes what was ordered of a node; the order itself stands with the node, in another slot.
--
-- KEYS  1 P:{orders}:audit
-- ARGV  1 audit lines at most  2 I  3 drain or undrain  4 by  5 reason
-- RETURNS the line's id
-- ATOMICITY  one command. A script, so that it works when Redis is full: an order that was given is not to fail here.
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'node', ARGV[2], 'action', ARGV[3], 'by', ARGV[4],
    'reason', ARGV[5])
