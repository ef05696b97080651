"""The guard of code-name.ts over HTTP, with Python's standard library alone: python3 guard.py [PORT]"""
import json, re, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
NAME, HOOKS = 'bluebird', ['request', 'response', 'stream']
MESSAGE = 'Your message names a project that must not leave the house. Take the name out and send it again.'
mask = lambda text: re.sub(NAME, '[project]', text, flags=re.I | re.A)
named = lambda segments: [s for s in segments if mask(s['text']) != s['text']]

def answer(hook, asked):
    if hook == 'describe':
        return {'contract': 1, 'name': 'code-name', 'version': '1.0.0', 'hooks': HOOKS, 'rewrites': True}
    if hook == 'request':
        bad = [s['id'] for s in named(asked['segments']) if s['channel'] != 'tool-result']
        return {'reject': {'code': 'code_name', 'message': MESSAGE, 'segments': bad}} if bad else {'allow': {}}
    if hook == 'response':
        return {'rewrite': {'segments': [{'id': s['id'], 'text': mask(s['text'])} for s in named(asked['segments'])]}}
    text = asked['text']  # stream: an end of the text that may become the name is held until more has come.
    held = 0 if asked['last'] else next(n for n in range(7, -1, -1) if text.lower().endswith(NAME[:n]))
    return {'release': {'release': mask(text[:len(text) - held]), 'hold': text[len(text) - held:]}}

class Guard(BaseHTTPRequestHandler):
    protocol_version, wbufsize, log_message = 'HTTP/1.1', -1, lambda *_: None  # keep-alive, one write per answer, no log
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['content-length'])))
        body = json.dumps(answer(self.path.strip('/'), asked)).encode()
        self.send_response(200)
        for name, value in {'content-type': 'application/json', 'content-length': len(body)}.items(): self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Guard).serve_forever()
