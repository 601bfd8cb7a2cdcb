-- Has wrk send POST with the body, the headers and the path of a peer; arguments after `--`: path, key, body.
function init(args)
  wrk.method = "POST"
  wrk.path = args[1]
  wrk.headers["authorization"] = "Bearer " .. args[2]
  wrk.headers["content-type"] = "application/json"
  wrk.body = args[3]
  request_text = wrk.format()
end

function request()
  return request_text
end
