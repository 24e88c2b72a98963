import { expect, test } from 'vitest'
import { diffCounts, diffLines, looksLikeDiff } from '../src/text/diff'

const UNIFIED = `diff --git a/x.py b/x.py
index 1a2b3c..4d5e6f 100644
--- a/x.py
+++ b/x.py
@@ -1,3 +1,3 @@
 same
-old
--- a dashed line that was deleted
+new
`

const PATCH = `*** Begin Patch
*** Update File: x.py
@@ def f():
-    return 1
+    return 2
*** Add File: y.py
+whole
*** End Patch
`

const kinds = (text: string): string[] => diffLines(text).map((line) => line.kind)

test('a unified diff, with a deleted line that looks like a file', () => {
  expect(kinds(UNIFIED)).toEqual(['file', 'file', 'file', 'file', 'hunk', 'same', 'del', 'del', 'add'])
})

test('the patches of codex', () => {
  expect(kinds(PATCH)).toEqual(['file', 'file', 'hunk', 'del', 'add', 'file', 'add', 'file'])
  expect(diffCounts(diffLines(PATCH))).toEqual({ added: 2, deleted: 1 })
})

test('no line is lost or changed', () => {
  expect(`${diffLines(UNIFIED).map((line) => line.text).join('\n')}\n`).toBe(UNIFIED)
})

test('a list with dashes is no diff', () => {
  expect(looksLikeDiff('--- heading\n- one\n+ two\n')).toBe(false)
  expect(looksLikeDiff(UNIFIED)).toBe(true)
  expect(looksLikeDiff(`apply_patch <<'E'\n${PATCH}`)).toBe(true)
  expect(kinds('- one\n+ two')).toEqual(['same', 'same'])
})
