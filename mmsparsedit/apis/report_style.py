"""Style and script of the run report: both stand in the page itself."""

_LIGHT = """--back:#ffffff;--card:#f6f7f9;--text:#1c2128;--soft:#5b6470;--edge:#d5dae1;
--link:#0b62a8;
--s0:#0072b2;--s1:#d55e00;--s2:#008f68;--s3:#b4508a;--s4:#8a6d00;--s5:#5f55b0;--s6:#7a7a7a;
color-scheme:light"""
_DARK = """--back:#14171c;--card:#1e232a;--text:#e6e9ee;--soft:#a0a9b5;--edge:#3a424d;
--link:#7cc0f5;
--s0:#58b4ec;--s1:#f5985a;--s2:#4ccfa4;--s3:#e58cc2;--s4:#e3c75a;--s5:#aaa2f0;--s6:#9aa1aa;
color-scheme:dark"""

STYLE = (
    f':root{{{_LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}'
    f':root[data-theme=light]{{{_LIGHT}}}:root[data-theme=dark]{{{_DARK}}}'
    """
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
header{padding:1rem;border-bottom:1px solid var(--edge);display:flex;flex-wrap:wrap;gap:.5rem 1rem}
header,main{max-width:84rem;margin:auto}
h1{font-size:1.4rem;margin:0;flex:1;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:1.6rem 0 .6rem}h3{font-size:1rem;margin:.8rem 0 .4rem}
nav{width:100%;display:flex;flex-wrap:wrap;gap:.2rem 1rem}a{color:var(--link)}
button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--edge);
border-radius:.4rem;padding:.1rem .6rem;cursor:pointer;align-self:start;white-space:nowrap}
main{padding:0 1rem 3rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
.column{min-width:0}
figure{margin:0 0 1rem;min-width:0}figcaption{font-weight:600;overflow-wrap:anywhere}
.chart{background:var(--card);border:1px solid var(--edge);border-radius:.5rem;padding:.7rem;
margin:0;position:relative}
svg{width:100%;height:auto;display:block;font-size:12px;touch-action:pan-y}
svg text{fill:var(--soft)}.grid{stroke:var(--edge)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.line.faint{stroke-width:1;opacity:.3}.line.dashed{stroke-dasharray:5 4}
.cross{stroke:var(--soft);stroke-dasharray:2 2}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.85rem;overflow-wrap:anywhere}
.legend i{display:inline-block;width:1.2em;border-top:3px solid var(--c);vertical-align:middle;
margin-right:.4em}.legend i.dashed{border-top-style:dashed}
.x,.none{color:var(--soft)}
output{display:block;font-size:.85rem;min-height:1.4em;font-variant-numeric:tabular-nums}
img{max-width:100%;height:auto;display:block;background:#fff;border-radius:.3rem;
image-rendering:pixelated}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.25rem .8rem .25rem 0;text-align:right;border-bottom:1px solid var(--edge);
font-variant-numeric:tabular-nums;vertical-align:top}
th:first-child,.left td,.left th{text-align:left}tbody th{font-weight:400;color:var(--soft)}
.left td{overflow-wrap:anywhere;min-width:8rem}
details{border:1px solid var(--edge);border-radius:.5rem;padding:.4rem .8rem;margin:.5rem 0;
background:var(--card)}summary{cursor:pointer}pre{overflow-x:auto;font-size:.85rem}
@media(max-width:32rem){th,td{padding-right:.5rem}table{font-size:.85rem}
.left td{min-width:4.5rem}.left tbody th{overflow-wrap:anywhere;min-width:6rem}}
"""
)

# reading of values under the pointer, and the switch of light and dark
SCRIPT = """
document.getElementById('theme').onclick=()=>{const r=document.documentElement;
const dark=r.dataset.theme?r.dataset.theme==='dark':
matchMedia('(prefers-color-scheme:dark)').matches;
r.dataset.theme=dark?'light':'dark'};
for(const f of document.querySelectorAll('.chart[data-lines]')){
const [label,lines]=JSON.parse(f.dataset.lines),svg=f.querySelector('svg');
const cross=f.querySelector('.cross'),out=f.querySelector('output');
svg.addEventListener('pointermove',e=>{const box=svg.getBoundingClientRect();
const at=(e.clientX-box.left)*svg.viewBox.baseVal.width/box.width;let x=null,near=[];
for(const [name,points] of lines){let best=points[0];
for(const p of points)if(Math.abs(p[2]-at)<Math.abs(best[2]-at))best=p;
near.push(name+' '+best[1]);if(x===null||Math.abs(best[2]-at)<Math.abs(x[2]-at))x=best}
cross.setAttribute('x1',x[2]);cross.setAttribute('x2',x[2]);
out.textContent=label+' '+x[0]+': '+near.join(' · ')});
svg.addEventListener('pointerleave',()=>{out.textContent='';cross.setAttribute('x1',-9);
cross.setAttribute('x2',-9)})}
"""
