/** Removes secrets from what will be sent to others. */

import { parseJson } from '../../lib/cni/json.ts';
import {
  annotationsCapability,
  defaultAnnotation,
  genieAnnotation,
  networksAnnotation,
} from '../../lib/networks/pod.ts';
import { isObject } from '../../lib/object.ts';

/** Takes the place of a secret. */
const redacted = 'REDACTED';

const words = 'pass(?:word|wd|phrase|code)?|pwd|secret|token|bearer|credentials?|psk|auth(?:orization)?';
/** Keys such as "password", "dbPwd", "apiToken", "client-key-data", "sslKey", "apikey", "key". */
const secretKey = new RegExp(
  `(?:^|[_.-])(?:${words})(?:$|[_.-])|(?:Pass(?:word|code)?|Pwd|Secret|Token|Bearer|Credentials?|Auth|Psk)(?=$|[A-Z_.-])|key(?=$|[_.-]?(?:data|file|pem|b64|base64)$)|password|secret|token`,
);

/** Whether the value of a key must not be shown. */
function isSecret(key: string): boolean {
  return secretKey.test(key) || secretKey.test(key.toLowerCase());
}

/** The annotations of pods that plugins read. */
const knownAnnotations = new Set([networksAnnotation, defaultAnnotation, genieAnnotation]);

/**
 * Removes secrets from a JSON value: those named by a key, by a "name" beside a "value", or by an option
 * before its value, and whatever looks like a secret in any text. CNI_ARGS are kept, as pairs of libcni's
 * cache or as one text. Of a pod's annotations, only those that plugins read are kept, as others may hold
 * anything.
 */
export function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redactString(value);
  if (Array.isArray(value))
    return value.map((one, i) => (isSecretOption(value[i - 1]) ? redacted : redactValue(one)));
  if (!isObject(value)) return value;
  const isSecretVariable = typeof value.name === 'string' && isSecret(value.name);
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      if (key === 'cniArgs') return [key, inner];
      if (key === annotationsCapability && isObject(inner)) return [key, redactValue(readByPlugins(inner))];
      return [key, isSecret(key) || (key === 'value' && isSecretVariable) ? redacted : redactValue(inner)];
    }),
  );
}

function readByPlugins(annotations: object): object {
  return Object.fromEntries(Object.entries(annotations).filter(([name]) => knownAnnotations.has(name)));
}

/** Whether the argument after this one is a secret, as after "--password". */
function isSecretOption(value: unknown): boolean {
  return typeof value === 'string' && /^--?[\w.-]+$/.test(value) && isSecret(value);
}

/** JSON within a string is redacted as JSON. */
function redactString(text: string): string {
  if (!/^\s*[[{]/.test(text)) return redactText(text);
  try {
    return JSON.stringify(redactValue(parseJson(text)));
  } catch {
    return redactText(text);
  }
}

/**
 * Removes secrets from text: private keys, passwords in URLs, tokens, and values that are named like secrets.
 * No pattern scans the rest of the text again from each position, so that the time is linear in the length.
 */
export function redactText(text: string): string {
  const told = withoutLines(text)
    .replace(/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted)
    .replace(/\b([a-z][a-z0-9+.-]{0,40}:\/\/[^\s/:@"']*):[^\s/@"']+@/gi, `$1:${redacted}@`)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{8,}/gi, `$1 ${redacted}`)
    .replace(/\beyJ(?:(?!\beyJ)[\w-]){8,}\.(?:eyJ)?(?:(?!\beyJ)[\w-]){8,}\.[\w-]*/g, redacted)
    .replace(/(^|\s)(--?[\w.-]+)(\s+)[^\s-]\S*/g, (all, before: string, option: string, between: string) =>
      isSecret(option) ? `${before}${option}${between}${redacted}` : all,
    )
    .replace(/([?&])([\w.-]+)=[^\s&#"']+/g, (all, before: string, key: string) =>
      isSecret(key) ? `${before}${key}=${redacted}` : all,
    );
  return withoutValues(told);
}

/** A line that begins with a key: what precedes that, the key, and what separates it from its value. */
const lineStart = /^(\s*(?:-\s+)*)(["']?)([\w.-]+)\2(\s*:|\s+=)/;

/**
 * Removes the values of keys at the beginning of lines that are named like secrets, to the end of the line.
 * In YAML, lines that are indented more than the key are part of the value, in whatever style it is, and so
 * are items of a list as far as the key.
 */
function withoutLines(text: string): string {
  /** Indentation of the key whose value is left out. */
  let depth = Number.POSITIVE_INFINITY;
  return text
    .split('\n')
    .flatMap((line) => {
      const indentation = line.search(/\S/);
      const isItem = indentation === depth && /^-(?:\s|$)/.test(line.slice(indentation, indentation + 2));
      if (indentation < 0 || indentation > depth || isItem)
        return depth === Number.POSITIVE_INFINITY ? line : [];
      depth = Number.POSITIVE_INFINITY;
      const [all, before, , key] = lineStart.exec(line) ?? [];
      if (key === undefined || !isSecret(key)) return line;
      depth = before!.length;
      return `${all} "${redacted}"`;
    })
    .join('\n');
}

/** Removes values that are named like secrets anywhere. The value of any other key may hold further keys. */
function withoutValues(text: string): string {
  // In "https://…", the scheme is no key.
  const keys = /(["']?)(?<![\w.-])([\w.-]+)\1\s*(?:=|:(?!\/\/))\s*/g;
  const parts: string[] = [];
  let end = 0;
  for (let match = keys.exec(text); match; match = keys.exec(text)) {
    const start = keys.lastIndex;
    if (!isSecret(match[2]!) || text.startsWith(redacted, start)) continue;
    const next = endOfValue(text, start);
    if (next === start) continue;
    parts.push(text.slice(end, start), `"${redacted}"`);
    keys.lastIndex = end = next;
  }
  return [...parts, text.slice(end)].join('');
}

/** A value that is neither quoted nor in brackets. */
const word = /[^\s,;{}[\]]+/y;
/** A quoted value, or another part of a value in brackets; however long it is, matching takes no stack. */
const piece = /"[\s\S]*?(?:(?<!\\)"|$)|'[^']*'?|[[\]{}]|[^"'[\]{}]+/y;

/** Where the value ends that begins at a place. A quotation or bracket that is not closed never does. */
function endOfValue(text: string, start: number): number {
  const pattern = /["'[{]/.test(text.charAt(start)) ? piece : word;
  let end = start;
  let depth = 0;
  /** Whether a single quotation mark follows that was doubled. */
  let isDoubled = false;
  do {
    pattern.lastIndex = end;
    const [found = ''] = pattern.exec(text) ?? [];
    if (found === '') break;
    if (found === '[' || found === '{') depth++;
    else if (found === ']' || found === '}') depth--;
    end += found.length;
    isDoubled = found.startsWith("'") && text.charAt(end) === "'";
  } while (depth > 0 || isDoubled);
  return end;
}

/** A JSON file without its secrets; anything else is redacted as text. */
export function redactFile(text: string): string {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    return redactText(text);
  }
  return JSON.stringify(redactValue(value), null, 2);
}
