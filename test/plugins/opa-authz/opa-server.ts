/** An OPA that answers what the test says. */
import { type Answered, type Asked, type Foreign, httpServer } from '../../connect/foreign.ts';

/** What OPA is asked, read. */
export interface Question {
  path: string;
  headers: Record<string, unknown>;
  body: { input: Record<string, unknown> & { request: Record<string, unknown> } };
}

/** @param result gives the `result`, `undefined` for an undefined decision, or a whole answer with a status */
export async function opaServer(
  result: (input: Question['body']['input']) => unknown,
): Promise<Foreign & { url: string; questions: Question[] }> {
  const questions: Question[] = [];
  const server = await httpServer((asked: Asked): Answered => {
    const body = JSON.parse(asked.body) as Question['body'];
    questions.push({ path: asked.path, headers: asked.headers, body });
    const given = result(body.input);
    return isAnswer(given) ? given : { body: JSON.stringify({ decision_id: 'd-1', result: given }) };
  });
  return { ...server, url: `http://${server.address}`, questions };
}

function isAnswer(given: unknown): given is Answered {
  return typeof given === 'object' && given !== null && 'status' in given;
}
