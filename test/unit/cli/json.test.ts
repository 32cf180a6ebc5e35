import test from 'ava';
import { excerptOf, JsonSyntaxError, offsetOf, parseJson, positionOf } from '../../../cli/json.ts';

/** Where parsing fails, as "line:column message". */
function mistake(text: string): string {
  try {
    parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    const { line, column } = positionOf(text, error.offset);
    return `${line}:${column} ${error.message}`;
  }
  return 'none';
}

test('each syntax error is named in words, at the place to correct', (t) => {
  const cases: [string, string][] = [
    ['{\n  "a": 1\n  "b": 2\n}', '2:9 A comma is missing between this value and "b"'],
    ['[1 2]', '1:3 A comma is missing between this value and "2"'],
    ['[{} {}]', '1:4 A comma is missing between this value and "{"'],
    ['{"a": 1,\n}', '1:8 Found a comma after the last item. Remove it'],
    ['[1,]', '1:3 Found a comma after the last item. Remove it'],
    ['{"a": 1,, "b": 2}', '1:9 Found "," where a key in double quotes should be'],
    ['{"a": 1]', '1:8 Found "]" where "," or a closing bracket should be'],
    ['{"a" 1}', '1:6 Found "1" where the ":" after a key should be'],
    ['{"a": }', '1:7 Found "}" where a value should be'],
    [
      '{\n "a": [1',
      '2:9 Found the end of the file where "," or "]" should be: the "[" of line 2, column 7 is not closed',
    ],
    [
      '{\n "a": []',
      '2:9 Found the end of the file where "," or "}" should be: the "{" of line 1, column 1 is not closed',
    ],
    ['', '1:1 Found the end of the file where a value should be'],
    ['{} []', '1:4 Found "[" after the end of the value. Remove it, or the bracket that ends it early'],
    ['{"a": tru}', '1:7 Found "tru", which is not a value. A text needs double quotes'],
    ['{"a": 1.}', '1:7 Found "1.", which is not a value. A text needs double quotes'],
    ["{'a': 1}", '1:2 Found "\'a\'" where a key or a value should be'],
    ['{"a": "x\n"}', '1:7 The text that begins here has no closing quote'],
    [
      '{"a": "\\d"}',
      '1:8 Found an escape sequence that JSON does not have. A backslash itself is written "\\\\"',
    ],
    [
      '{"a": "x\ty"}',
      '1:9 Found a control character in a text. Write it as an escape sequence such as "\\t"',
    ],
    ['{"a": 1 // one\n}', '1:9 Found a comment, which JSON does not have. Remove it'],
    ['{\n# one\n}', '2:1 Found "#" (JSON has no comments) where a key or a value should be'],
    ['\uFEFF{}', '1:1 The file begins with a byte order mark. Save it without one'],
  ];
  for (const [text, expected] of cases) t.is(mistake(text), expected, text);
});

test('deep nesting is refused, not a stack overflow', (t) => {
  t.is(mistake(`${'['.repeat(1000)}${']'.repeat(1000)}`), 'none');
  t.regex(mistake('['.repeat(200_000)), /^1:1001 Brackets are nested more than 1000 deep/);
});

test('exactly what JSON.parse takes is taken, with the same value', (t) => {
  const seed = '{"a":[1,-2.5e3,true,null,"x\\n\\u00e9"],"b":{"c":"d"},"":[]}';
  const alphabet = '{}[]",:\\0129.eE+-tfn \n\tax/#';
  let random = 7;
  const next = (below: number) => {
    random = (random * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((random / 2 ** 31) * below);
  };
  const outcome = (parse: () => unknown) => {
    try {
      return JSON.stringify(parse());
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof JsonSyntaxError) return 'refused';
      throw error;
    }
  };
  for (let i = 0; i < 20_000; i++) {
    let text = seed;
    for (let edits = next(3); edits >= 0; edits--) {
      const at = next(text.length);
      text =
        text.slice(0, at) + (next(3) > 0 ? alphabet[next(alphabet.length)] : '') + text.slice(at + next(2));
    }
    t.is(
      outcome(() => parseJson(text).value),
      outcome(() => JSON.parse(text)),
      text,
    );
  }
});

test('keys that occur twice are kept apart, and "__proto__" is a key like any other', (t) => {
  const { fields, value } = parseJson('{"a": 1, "__proto__": 2, "a": 3}');
  t.deepEqual(
    fields?.map(({ key, start }) => [key, start]),
    [
      ['a', 1],
      ['__proto__', 9],
      ['a', 25],
    ],
  );
  t.is((value as { a: number }).a, 3);
  t.true(Object.hasOwn(value as object, '__proto__'));
});

test('paths lead to the offset of the last part that exists', (t) => {
  const text = '{"plugins": [{"sysctl": {"net.core.x": 1}, "IPAM": {"ranges": [[{"subnet": "x"}]]}}]}';
  const root = parseJson(text);
  for (const [path, at] of [
    ['', '{"plugins"'],
    ['plugins[0].sysctl.net.core.x', '"net.core.x"'],
    ['plugins[0].ipam.ranges[0][0].subnet', '"subnet"'],
    ['plugins[0].ipam.ranges[0][0].gateway', '{"subnet"'],
    ['plugins[1]', '"plugins"'],
  ] as const)
    t.is(offsetOf(root, path), text.indexOf(at), path);
});

test('an excerpt of a long line is cut around the caret', (t) => {
  const [line, caret] = excerptOf(`${'x'.repeat(200)}!${'y'.repeat(200)}`, 200).split('\n');
  t.is(line!.length, 76);
  t.is(line![caret!.indexOf('^')], '!');
});
