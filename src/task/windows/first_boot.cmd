@echo off
rem Written by snf-image: runs the scripts beside it in their order, each once.
setlocal EnableExtensions DisableDelayedExpansion
set "SNF_LOG=%SystemRoot%\Temp\snf-image-firstboot.log"
for /f "delims=" %%f in ('dir /b /on "%~dp0????-*"') do call :one "%~dp0%%f"
exit /b 0

:one
echo === %DATE% %TIME% %~nx1 begins >> "%SNF_LOG%"
move /y "%~1" "%~dp1running-%~nx1" >nul
if /i "%~x1"==".ps1" goto powershell
call "%~dp1running-%~nx1" >> "%SNF_LOG%" 2>&1 <nul
goto done
:powershell
powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "%~dp1running-%~nx1" >> "%SNF_LOG%" 2>&1 <nul
:done
echo === %DATE% %TIME% %~nx1 ends with %ERRORLEVEL% >> "%SNF_LOG%"
del /f /q "%~dp1running-%~nx1"
exit /b 0
