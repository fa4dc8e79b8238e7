-- Keep leases. ARGV: worker, then stream, entry and job of each. An entry that is no longer held
-- has another id by now, so that a late renewal takes nothing from its new worker.
for at = 2, #ARGV, 3 do
  redis.pcall('XCLAIM', ARGV[at], GROUP, ARGV[1], 0, ARGV[at + 1], 'JUSTID')
  keep(P .. 'job:' .. ARGV[at + 2], GRACE_MS)
end
return 1
