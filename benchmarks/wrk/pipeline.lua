-- Many requests in one write, for wrk. The depth is the first argument after "--"; 24 without one.
-- wrk counts a batch's responses one by one, so its rate is that of requests.

local block

function init(args)
  local depth = tonumber(args[1]) or 24
  local requests = {}
  for number = 1, depth do
    requests[number] = wrk.format("GET", nil)
  end
  block = table.concat(requests)
end

function request()
  return block
end
