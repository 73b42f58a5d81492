"""The page's style sheet: light and dark by the reader's own setting, nothing from outside."""

CSS = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1d2330; --soft: #5b6472; --line: #d9dce1;
  --panel: #f3f4f1; --tint: 37 99 180; --win: #b4560a; --note: #fff4d6; --note-ink: #5c4400; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e6e9ee; --soft: #a3acb9; --line: #363c46; --panel: #1c2027; --tint: 96 160 240;
    --win: #ffb066; --note: #3a3116; --note-ink: #f6e3ac; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 2px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.soft, summary, small { color: var(--soft); }
summary { cursor: pointer; font-size: .9rem; margin: .3rem 0; }
.said { background: var(--panel); border-inline-start: 4px solid rgb(var(--tint)); padding: .5rem .8rem;
  margin: .5rem 0; overflow-wrap: anywhere; border-radius: .3rem; max-height: 22rem; overflow-y: auto; }
.verdict { font-size: 1.1rem; font-weight: 600; }
.note { background: var(--note); color: var(--note-ink); padding: .5rem .8rem; border-radius: .3rem; }
nav ul { padding-left: 1.2rem; margin: .3rem 0; overflow-wrap: anywhere; }
a { color: rgb(var(--tint)); }
.scroll { overflow-x: auto; margin: .5rem 0; }
:focus-visible { outline: 2px solid rgb(var(--tint)); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .9rem; vertical-align: bottom; }
th[scope=row], thead th:first-child, .places thead th { text-align: left; }
tfoot td, tfoot th { font-weight: 700; border-bottom: 0; }
.matrix th[scope=row] { position: sticky; left: 0; background: var(--paper); }
.matrix td { background: rgb(var(--tint) / calc(var(--v, 0) * 42%)); border: 1px solid var(--line); }
.matrix td.win { font-weight: 700; box-shadow: inset 0 0 0 2px var(--win); }
.matrix td.none { color: var(--soft); font-style: italic; }
.bar { display: inline-block; width: 5rem; height: .6rem; background: var(--line); border-radius: .3rem;
  vertical-align: middle; margin-left: .5rem; overflow: hidden; }
.bar i { display: block; height: 100%; background: rgb(var(--tint)); }
.places { width: 100%; }
.places td { text-align: left; white-space: normal; vertical-align: top; }
.places th[scope=row] { vertical-align: top; width: 3.5rem; }
ul.tokens { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem; }
ul.tokens li { background: var(--panel); border: 1px solid var(--line); border-radius: .3rem; padding: 0 .4rem;
  max-width: 100%; overflow-wrap: anywhere; }
ul.tokens li.own { border-color: rgb(var(--tint)); background: rgb(var(--tint) / 14%); }
.term { max-width: 16rem; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 40rem) {
  main { padding: 1rem .7rem 3rem; }
  th, td { padding: .25rem .4rem; }
  .places, .places tbody, .places tr, .places th, .places td { display: block; border: 0; }
  .places th[scope=row] { width: auto; }
  .places thead { display: none; }
  .places tr { border-bottom: 1px solid var(--line); padding: .3rem 0; }
  .places td:last-child::before { content: "of its own words"; color: var(--soft); font-size: .85rem; }
  .places td:last-child:empty { display: none; }
  .bar { display: none; }
  .matrix { font-size: .9rem; }
}
@media print { .said { max-height: none; } .said, .note { border: 1px solid var(--line); } }
"""
