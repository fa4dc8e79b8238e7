-- An API process has the outcomes it waited for. ARGV: API process, then the jobs.
for at = 2, #ARGV do
  local id = ARGV[at]
  if redis.call('EXISTS', P .. 'job:' .. id) == 1 then
    remove_waiter(id, ARGV[1])
    if not is_open(id) then forget_unless_wanted(id) end
  end
end
return 1
