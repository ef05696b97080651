/** The guard of code-name.ts as a service of its own, over gRPC and over HTTP. */
import { servePlugin } from '../serve.ts';
import { codeName } from './code-name.ts';

const { GUARD_GRPC: grpc = '127.0.0.1:9000', GUARD_HTTP: http = '127.0.0.1:8000' } = process.env;
const service = await servePlugin(codeName, { grpc, http, log: console.log });
process.once('SIGTERM', () => void service.close().then(() => process.exit()));
