/** Exits 0 when a URL answers 2xx within three seconds: `node deploy/healthcheck.ts http://127.0.0.1:15020/healthz`. */
import { get } from 'node:http';

const [url = ''] = process.argv.slice(2);
const request = get(url, { signal: AbortSignal.timeout(3000) }, ({ statusCode = 0 }) => {
  if (statusCode < 200 || statusCode > 299) console.log(`${url} answers ${statusCode}`);
  process.exit(statusCode >= 200 && statusCode <= 299 ? 0 : 1);
});
request.on('error', (error) => {
  console.log(`${url}: ${error.message}`);
  process.exit(1);
});
