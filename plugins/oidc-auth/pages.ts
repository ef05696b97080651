/** The few pages that people see here. */
import type { Identity, Respond } from '../../proto/contract.ts';

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}dt{color:#666}dd{margin:0 0 .6rem}button{font:inherit;padding:.4rem 1rem}';

/** An answer that no other site can frame, no script can run in and no cache keeps. */
export function answerPage(status: number, body: string): Respond {
  return {
    status,
    contentType: 'text/html; charset=utf-8',
    headers: {
      'cache-control': 'no-store',
      'content-security-policy':
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
      'referrer-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
    },
    body: `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Wardgate</title><style>${STYLE}</style>${body}</html>`,
  };
}

export function sorryPage(what: string, again: string): string {
  return `<h1>You are not signed in</h1><p>${escaped(what)}</p><p><a href="${escaped(again)}">Sign in again</a></p>`;
}

export function personPage(person: Omit<Identity, 'claims'>, logout: string): string {
  const rows = Object.entries(person)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped([value].flat().join(', '))}</dd>`);
  return `<h1>You are signed in</h1><dl>${rows.join('')}</dl>${leaveForm(logout)}`;
}

export function sureToLeavePage(logout: string): string {
  return `<h1>Sign out?</h1>${leaveForm(logout)}`;
}

function leaveForm(logout: string): string {
  return `<form method="post" action="${escaped(logout)}"><button>Sign out</button></form>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
