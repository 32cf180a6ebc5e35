/** Takes secrets out of what is going to be sent to others. */

import { isObject } from '../../lib/object.ts';

/** What stands in a secret's place. */
const redacted = 'REDACTED';

const words = 'pass(?:word|wd|phrase)?|secret|token|credentials?|psk|auth(?:orization)?|fastopen_key';
/** Keys such as "password", "apiToken", "client-key-data", "sslKey", "key". */
const secretKey = new RegExp(
  `(?:^|[_.-])(?:${words})(?:$|[_.-])|(?:Pass(?:word)?|Secret|Token|Credentials?|Auth|Psk)(?=$|[A-Z_.-])|(?:^|[_.-])(?:private[_.-]?)?key(?=$|[_.-](?:data|file|pem|b64|base64)$)|[a-z0-9]Key(?=$|Data$|File$|Pem$)|password|secret|token|privatekey`,
);

/** Whether the value of a key must not be shown. */
function isSecret(key: string): boolean {
  return secretKey.test(key) || secretKey.test(key.toLowerCase());
}

/**
 * Takes secrets out of a value of JSON: what has the name of one, and what looks like one in any text.
 * CNI_ARGS are kept, as pairs of libcni's cache or as one text.
 */
export function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redactText(value);
  if (Array.isArray(value)) return value.map(redactValue);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      key === 'cniArgs' ? inner : isSecret(key) ? redacted : redactValue(inner),
    ]),
  );
}

/** Takes secrets out of text: private keys, passwords in URLs, tokens, and what has the name of a secret. */
export function redactText(text: string): string {
  return text
    .replace(/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted)
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/[^\s/:@"']*):[^\s/@"']+@/gi, `$1:${redacted}@`)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{8,}/gi, `$1 ${redacted}`)
    .replace(/\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g, redacted)
    .replace(
      /(["']?)([\w.-]+)\1(\s*[:=]\s*)("(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s,;{}[\]]+)/g,
      (all, quote: string, key: string, between: string) =>
        isSecret(key) ? `${quote}${key}${quote}${between}"${redacted}"` : all,
    );
}

/** A file of JSON without its secrets; what is no JSON is taken as text. */
export function redactFile(text: string): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return redactText(text);
  }
  return JSON.stringify(redactValue(value), null, 2);
}
